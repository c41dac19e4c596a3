#include "dit-svc/service.h"

int main(int argc, char **argv)
{
    return lw_service_main(&lw_dit_service, argc, argv);
}
