#include "vae-svc/service.h"

int main(int argc, char **argv)
{
    return lw_service_main(&lw_vae_service, argc, argv);
}
