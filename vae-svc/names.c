#include "vae-svc/names.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/*
 * Diffusers names -> names of ae.safetensors. The model is written with the first; a table of
 * rewritten parts gives the second. In a pattern '#' stands for a number, which the replacement
 * repeats with '#', or counts from the other end with '^' (the BFL decoder's blocks are numbered
 * from the picture's side). Attention weights are 1x1 convolutions there, the same data.
 */
static const struct {
    const char *diffusers, *bfl;
} parts[] = {
    { "down_blocks.#.resnets.#", "down.#.block.#" },
    { "down_blocks.#.downsamplers.0.conv", "down.#.downsample.conv" },
    { "up_blocks.#.resnets.#", "up.^.block.#" },
    { "up_blocks.#.upsamplers.0.conv", "up.^.upsample.conv" },
    { "mid_block.resnets.0", "mid.block_1" },
    { "mid_block.resnets.1", "mid.block_2" },
    { "mid_block.attentions.0.group_norm", "mid.attn_1.norm" },
    { "mid_block.attentions.0.to_q", "mid.attn_1.q" },
    { "mid_block.attentions.0.to_k", "mid.attn_1.k" },
    { "mid_block.attentions.0.to_v", "mid.attn_1.v" },
    { "mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out" },
    { "conv_shortcut", "nin_shortcut" },
    { "conv_norm_out", "norm_out" },
};

/** Does s start with the pattern, ending at a dot or the end? Gives its length and numbers. */
static bool match(const char *pattern, const char *s, size_t *ret_len, int ret_numbers[2])
{
    const char *at = s;
    int n = 0;

    for (; *pattern != '\0'; pattern++) {
        if (*pattern != '#') {
            if (*at++ != *pattern)
                return false;
            continue;
        }
        if (!isdigit((unsigned char)*at) || n == 2)
            return false;
        ret_numbers[n] = 0;
        for (; isdigit((unsigned char)*at) && ret_numbers[n] < 1000; at++)
            ret_numbers[n] = ret_numbers[n] * 10 + (*at - '0');
        n++;
    }
    *ret_len = (size_t)(at - s);
    return *at == '.' || *at == '\0';
}

/** Append the replacement; false when it does not fit. */
static bool expand(const char *bfl, const int numbers[2], int n_blocks, char *ret, size_t ret_bytes,
                   size_t *len)
{
    int used = 0;

    for (; *bfl != '\0'; bfl++) {
        int n;

        if (*bfl == '#')
            n = snprintf(ret + *len, ret_bytes - *len, "%d", numbers[used++]);
        else if (*bfl == '^')
            n = snprintf(ret + *len, ret_bytes - *len, "%d", n_blocks - 1 - numbers[used++]);
        else
            n = snprintf(ret + *len, ret_bytes - *len, "%c", *bfl);
        if (n < 0 || (size_t)n >= ret_bytes - *len)
            return false;
        *len += (size_t)n;
    }
    return true;
}

bool lw_vae_stored_name(lw_vae_layout layout, int n_blocks, const char *name, char *ret,
                        size_t ret_bytes)
{
    size_t len = 0;
    bool at_part = true; /* a part starts the name or follows a dot */

    if (layout == LW_VAE_DIFFUSERS) {
        int n = snprintf(ret, ret_bytes, "%s", name);

        return n >= 0 && (size_t)n < ret_bytes;
    }
    while (*name != '\0') {
        size_t part_len = 0;
        int numbers[2];
        size_t i = LW_ARRAY_LEN(parts);

        if (at_part)
            for (i = 0; i < LW_ARRAY_LEN(parts); i++)
                if (match(parts[i].diffusers, name, &part_len, numbers))
                    break;
        if (i < LW_ARRAY_LEN(parts)) {
            if (!expand(parts[i].bfl, numbers, n_blocks, ret, ret_bytes, &len))
                return false;
            name += part_len;
            at_part = false;
        } else {
            if (len + 1 >= ret_bytes)
                return false;
            at_part = *name == '.';
            ret[len++] = *name++;
        }
    }
    ret[len] = '\0';
    return true;
}

bool lw_vae_has(const lw_weights *w, lw_vae_layout layout, int n_blocks, const char *name)
{
    char stored[LW_VAE_NAME_BYTES];

    return lw_vae_stored_name(layout, n_blocks, name, stored, sizeof(stored)) &&
           lw_weights_find(w, stored) != NULL;
}

lw_status lw_vae_layout_detect(const lw_weights *w, lw_vae_layout *ret, lw_err *err)
{
    static const char name[] = "decoder.conv_norm_out.weight";

    if (lw_vae_has(w, LW_VAE_DIFFUSERS, 1, name))
        *ret = LW_VAE_DIFFUSERS;
    else if (lw_vae_has(w, LW_VAE_BFL, 1, name))
        *ret = LW_VAE_BFL;
    else
        return lw_fail(err, LW_E_FORMAT,
                       "%s: no VAE decoder in it (neither %s nor decoder.norm_out.weight); give "
                       "the model's vae folder or a file such as ae.safetensors",
                       lw_weights_path(w), name);
    return LW_OK;
}
