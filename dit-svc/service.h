#ifndef LW_DIT_SERVICE_H
#define LW_DIT_SERVICE_H

#include "proto/service.h"

/** The denoiser service: op denoise. */
extern const lw_service lw_dit_service;

#endif
