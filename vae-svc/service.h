#ifndef LW_VAE_SERVICE_H
#define LW_VAE_SERVICE_H

#include "proto/service.h"

/** The decoder service: ops decode and encode_image. */
extern const lw_service lw_vae_service;

#endif
