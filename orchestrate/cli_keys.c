/*
 * `latentwire keys`: CURVE key pairs for hubs on tcp. A folder of keys looks like this:
 *
 *     hub.public  hub.secret          the hub's own pair; clients and workers need hub.public
 *     NAME.public NAME.secret         a client's or worker's own pair
 *     authorized/ROLE/NAME.public     whom the hub lets in, and as what
 */

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "common/opt.h"
#include "orchestrate/cli.h"
#include "proto/transport.h"

#define HUB_NAME "hub"

typedef struct key_options {
    const char *role;
} key_options;

static const lw_opt options[] = {
    { .name = "role",
      .kind = LW_OPT_CHOICE,
      .offset = offsetof(key_options, role),
      .choices = "encoder|denoiser|decoder|client",
      .value = "ROLE",
      .help = "what the owner of the new key may be (default: after NAME, else client)" },
    LW_OPT_END
};

static lw_status new_key(const char *dir, const char *name, lw_role role, lw_err *err)
{
    LW_TRY(lw_keys_generate(dir, name, err));
    printf("%s/%s.public\n%s/%s.secret\n", dir, name, dir, name);
    if (role == LW_ROLE_NONE)
        return LW_OK;
    LW_TRY(lw_keys_authorize(dir, name, role, err));
    printf("%s/authorized/%s/%s.public\n", dir, lw_role_name(role), name);
    return LW_OK;
}

/* "encoder" is made for an encoder; the hub's own key is nobody's. */
static lw_role role_of(const char *name, const char *asked)
{
    if (!asked && !strcmp(name, HUB_NAME))
        return LW_ROLE_NONE;
    for (int r = LW_ROLE_NONE + 1; r < LW_N_ROLES; r++)
        if (!strcmp(asked ? asked : name, lw_role_name((lw_role)r)))
            return (lw_role)r;
    return LW_ROLE_CLIENT;
}

lw_status lw_cli_keys(lw_cli *cli, int argc, char **argv, lw_err *err)
{
    static const char *const all[] = { HUB_NAME, "client", "encoder", "denoiser", "decoder" };
    key_options o = { 0 };
    const char *args[4];
    int n = 0;
    bool help = false;

    (void)cli;
    lw_opt_describe("latentwire keys init DIR | latentwire keys new DIR NAME [--role ROLE]",
                    "Make CURVE keys for a hub on tcp: `init` makes hub, client, encoder, denoiser "
                    "and decoder; `new` makes one more and lets it in.");
    LW_TRY(lw_opt_parse(options, argc, argv, &o, args, LW_ARRAY_LEN(args), &n, &help, err));
    if (help)
        return LW_OK;
    if (n == 2 && !strcmp(args[0], "init")) {
        for (size_t i = 0; i < LW_ARRAY_LEN(all); i++)
            LW_TRY(new_key(args[1], all[i], role_of(all[i], NULL), err));
        return LW_OK;
    }
    if (n == 3 && !strcmp(args[0], "new"))
        return new_key(args[1], args[2], role_of(args[2], o.role), err);
    return lw_fail(err, LW_E_INVALID,
                   "keys takes `init DIR` or `new DIR NAME`; `latentwire keys --help` says more");
}
