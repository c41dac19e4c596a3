#include "encoder-svc/service.h"

int main(int argc, char **argv)
{
    return lw_service_main(&lw_encoder_service, argc, argv);
}
