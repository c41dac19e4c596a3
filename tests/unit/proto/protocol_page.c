/*
 * The tables of docs/protocol.md, made from proto/schema.h, so that the page cannot lie:
 *
 *     protocol_page --check FILE     compare; 1 when a table differs
 *     protocol_page --write FILE     put the right tables in
 *
 * A table stands between "<!-- generated: NAME -->" and "<!-- end -->".
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"

#include "proto/fields.h"
#include "tests/unit/proto/fill.h"

#define BEGIN     "<!-- generated: "
#define END       "<!-- end -->"
#define MAX_BYTES (1u << 20)

/* ---- tables ---- */

static const struct {
    const char *name, *direction;
} types[] = {
#define TYPE_ROW(sym, wire, dir) { wire, dir },
    LW_MSG_TABLE(TYPE_ROW)
};

static const struct {
    lw_msg_type type;
    char need;
    const char *field;
} layout[] = {
#define LAYOUT_ROW(type, need, m) { LW_MSG_##type, #need[0], #m },
    LW_MSG_LAYOUT(LAYOUT_ROW)
};

typedef struct field_doc {
    const char *kind, *name, *doc;
    double max;
} field_doc;

#define FIELD_DOC(kind, m, max, doc) { #kind, #m, doc, (double)(max) },
static const field_doc msg_fields[] = { LW_MSG_FIELDS(FIELD_DOC) };
static const field_doc contract_fields[] = { LW_CONTRACT_FIELDS(FIELD_DOC) };
static const field_doc stage_fields[] = { LW_STAGE_FIELDS(FIELD_DOC) };

static bool needs_id(lw_msg_type type)
{
    bool needs = false;

#define ID_OF(t) needs = needs || type == LW_MSG_##t;
    LW_MSG_NEEDS_ID(ID_OF)
    return needs;
}

static void put_fields_of(lw_buf *b, lw_msg_type type, char need)
{
    int n = 0;

    for (size_t i = 0; i < LW_ARRAY_LEN(layout); i++)
        if (layout[i].type == type && layout[i].need == need)
            lw_buf_printf(b, "%s`%s`", n++ ? " " : "", layout[i].field);
    if (need == 'R' && needs_id(type))
        lw_buf_printf(b, "%s`id`", n++ ? " " : "");
    if (n == 0)
        lw_buf_puts(b, "-");
}

static void put_types(lw_buf *b)
{
    lw_buf_puts(b, "| type | direction | required | optional |\n|---|---|---|---|\n");
    for (size_t i = 0; i < LW_ARRAY_LEN(types); i++) {
        lw_buf_printf(b, "| `%s` | %s | ", types[i].name, types[i].direction);
        put_fields_of(b, (lw_msg_type)(i + 1), 'R');
        lw_buf_puts(b, " | ");
        put_fields_of(b, (lw_msg_type)(i + 1), 'O');
        lw_buf_puts(b, " |\n");
    }
}

static const char *kind_of(const field_doc *f)
{
    static const char *const kinds[][2] = {
        { "U", "uint" },     { "I", "int" },    { "F", "float" },     { "B", "bool" },
        { "S", "str" },      { "ID", "bin" },   { "FS", "array" },    { "ROLE", "name" },
        { "OP", "name" },    { "ART", "name" }, { "STATUS", "name" }, { "CONTRACT", "map" },
        { "STAGES", "map" },
    };

    for (size_t i = 0; i < LW_ARRAY_LEN(kinds); i++)
        if (strcmp(kinds[i][0], f->kind) == 0)
            return kinds[i][1];
    return "?";
}

static void put_limit(lw_buf *b, const field_doc *f)
{
    const char *k = f->kind;

    if (strcmp(k, "U") == 0 && f->max >= 18446744073709551615.0)
        lw_buf_puts(b, "2^64 - 1");
    else if (strcmp(k, "U") == 0)
        lw_buf_printf(b, "%.0f", f->max);
    else if (strcmp(k, "I") == 0 || strcmp(k, "F") == 0)
        lw_buf_printf(b, "±%g", f->max);
    else if (strcmp(k, "S") == 0)
        lw_buf_printf(b, "%.0f bytes", f->max);
    else if (strcmp(k, "ID") == 0)
        lw_buf_puts(b, "16 bytes");
    else if (strcmp(k, "FS") == 0)
        lw_buf_printf(b, "%.0f values", f->max);
}

static void put_field_table(lw_buf *b, const field_doc *f, size_t n)
{
    lw_buf_puts(b, "| key | kind | limit | meaning |\n|---|---|---|---|\n");
    for (size_t i = 0; i < n; i++) {
        lw_buf_printf(b, "| `%s` | %s | ", f[i].name, kind_of(&f[i]));
        put_limit(b, &f[i]);
        lw_buf_printf(b, " | %s |\n", f[i].doc);
    }
}

static void put_fields(lw_buf *b)
{
    put_field_table(b, msg_fields, LW_ARRAY_LEN(msg_fields));
}

static void put_contract(lw_buf *b)
{
    put_field_table(b, contract_fields, LW_ARRAY_LEN(contract_fields));
}

static void put_stages(lw_buf *b)
{
    put_field_table(b, stage_fields, LW_ARRAY_LEN(stage_fields));
}

static void put_names(lw_buf *b)
{
    lw_buf_puts(b, "| what | names |\n|---|---|\n| role |");
    for (int i = 1; i < LW_N_ROLES; i++)
        lw_buf_printf(b, " `%s`", lw_role_name((lw_role)i));
    lw_buf_puts(b, " |\n| op |");
    for (int i = 1; i < LW_N_OPS; i++)
        lw_buf_printf(b, " `%s` (%s)", lw_op_name((lw_op)i), lw_role_name(lw_op_role((lw_op)i)));
    lw_buf_puts(b, " |\n| from, to |");
    for (int i = 1; i < LW_N_ARTEFACTS; i++)
        lw_buf_printf(b, " `%s`", lw_artefact_name((lw_artefact)i));
    lw_buf_puts(b, " |\n| dtype (bytes) |");
    for (int i = 1; i < LW_N_DTYPES; i++)
        lw_buf_printf(b, " `%s` (%zu)", lw_dtype_name((lw_dtype)i), lw_dtype_size((lw_dtype)i));
    lw_buf_puts(b, " |\n| code |");
    for (int i = 1; i < LW_N_STATUS; i++)
        lw_buf_printf(b, " `%s`%s", lw_status_name((lw_status)i),
                      lw_status_retryable((lw_status)i) ? " (r)" : "");
    lw_buf_puts(b, " |\n");
}

static void put_limits(lw_buf *b)
{
    lw_buf_puts(b, "| what | limit |\n|---|---|\n");
    lw_buf_printf(b, "| header | %u bytes |\n", LW_MAX_HEADER_BYTES);
    lw_buf_printf(b, "| containers inside each other | %d |\n", LW_MAX_HEADER_DEPTH);
    lw_buf_printf(b, "| msgpack values in a header, keys included | %d |\n", LW_MAX_HEADER_ITEMS);
    lw_buf_printf(b, "| tensors of a message | %d |\n", LW_MAX_TENSORS);
    lw_buf_printf(b, "| axes of a tensor | %d |\n", LW_MAX_RANK);
    lw_buf_printf(b, "| name of a tensor | %d characters |\n", LW_MAX_TENSOR_NAME - 1);
    lw_buf_printf(b, "| frame | %u bytes |\n", LW_MAX_FRAME_BYTES);
    lw_buf_printf(b, "| message, all frames | %u bytes |\n", LW_MAX_MESSAGE_BYTES);
}

static void put_hex(lw_buf *b, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        lw_buf_puts(b, "   ");
        for (size_t j = i; j < n && j < i + 16; j++)
            lw_buf_printf(b, " %02x", p[j]);
        for (size_t j = n < i + 16 ? n : i + 16; j < i + 16; j++)
            lw_buf_puts(b, "   ");
        lw_buf_puts(b, "  ");
        for (size_t j = i; j < n && j < i + 16; j++)
            lw_buf_putc(b, p[j] > 0x20 && p[j] < 0x7f ? (char)p[j] : '.');
        lw_buf_putc(b, '\n');
    }
}

/* The same tensor in a frame of its own and in the header. */
static void put_bytes(lw_buf *b)
{
    static const uint8_t id[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
    lw_tensor t = fill_tensor(LW_BF16);
    lw_frame *f = lw_frame_copy(t.data, lw_tensor_bytes(&t));

    lw_buf_puts(b, "```\n");
    for (int inside = 0; inside < 2; inside++) {
        lw_packet p = { 0 };
        lw_msg m;

        lw_msg_init(&m, LW_MSG_RESULT, id);
        if (lw_msg_tensor_add(&m, "x", &t, inside ? NULL : f, NULL) != LW_OK ||
            lw_msg_encode(&m, &p, NULL) != LW_OK)
            abort();
        for (int i = 0; i < p.n_frames; i++) {
            lw_buf_printf(b, "%sframe %d%s\n", inside ? "\n" : "", i,
                          inside   ? ": header, the bytes inside it (ext 8, length 12, type 3)"
                          : i == 0 ? ": header"
                                   : ": 1 2 3 4 5 6 as bfloat16");
            put_hex(b, lw_frame_data(p.frames[i]), lw_frame_size(p.frames[i]));
        }
        lw_packet_clear(&p);
    }
    lw_buf_puts(b, "```\n");
    lw_frame_unref(&f);
}

static const struct {
    const char *name;
    void (*put)(lw_buf *b);
} tables[] = {
    { "types", put_types },        { "fields", put_fields }, { "contract", put_contract },
    { "stages", put_stages },      { "names", put_names },   { "limits", put_limits },
    { "tensor bytes", put_bytes },
};

/* ---- the page ---- */

static bool put_table(lw_buf *b, const char *name, size_t n)
{
    for (size_t i = 0; i < LW_ARRAY_LEN(tables); i++)
        if (strlen(tables[i].name) == n && memcmp(tables[i].name, name, n) == 0) {
            tables[i].put(b);
            return true;
        }
    fprintf(stderr, "no table \"%.*s\"\n", (int)n, name);
    return false;
}

/* The page with fresh tables; the number of them in *ret_n, -1 when a mark is wrong. */
static void refresh(const char *page, lw_buf *out, int *ret_n)
{
    *ret_n = 0;
    for (;;) {
        const char *begin = strstr(page, BEGIN), *name, *close, *end;

        if (!begin) {
            lw_buf_puts(out, page);
            return;
        }
        name = begin + strlen(BEGIN);
        close = strstr(name, " -->\n");
        end = close ? strstr(close, END) : NULL;
        if (!end) {
            *ret_n = -1;
            return;
        }
        lw_buf_put(out, page, (size_t)(close + 5 - page));
        if (!put_table(out, name, (size_t)(close - name))) {
            *ret_n = -1;
            return;
        }
        ++*ret_n;
        page = end;
    }
}

static bool read_page(const char *path, lw_buf *b)
{
    char block[4096];
    FILE *f = fopen(path, "rb");
    size_t n;

    while (f && (n = fread(block, 1, sizeof(block), f)) > 0)
        lw_buf_put(b, block, n);
    if (f)
        fclose(f);
    return f && !b->failed;
}

int main(int argc, char **argv)
{
    lw_buf old, fresh;
    FILE *f;
    int n = 0, rc = 1;

    if (argc != 3 || (strcmp(argv[1], "--check") != 0 && strcmp(argv[1], "--write") != 0)) {
        fprintf(stderr, "usage: protocol_page --check|--write FILE\n");
        return 2;
    }
    lw_buf_init(&old, MAX_BYTES);
    lw_buf_init(&fresh, MAX_BYTES);
    if (!read_page(argv[2], &old)) {
        perror(argv[2]);
        goto out;
    }
    refresh(lw_buf_cstr(&old), &fresh, &n);
    if (n != (int)LW_ARRAY_LEN(tables) || fresh.failed) {
        fprintf(stderr, "%s: expected %zu tables between \"" BEGIN "NAME -->\" and \"" END "\"\n",
                argv[2], LW_ARRAY_LEN(tables));
        goto out;
    }
    rc = strcmp(lw_buf_cstr(&old), lw_buf_cstr(&fresh)) != 0;
    if (rc && strcmp(argv[1], "--check") == 0) {
        fprintf(stderr, "%s differs from proto/schema.h; run protocol_page --write %s\n", argv[2],
                argv[2]);
    } else if (rc) {
        f = fopen(argv[2], "wb");
        rc = !f || fwrite(fresh.data, 1, fresh.len, f) != fresh.len;
        rc = (f && fclose(f) != 0) || rc;
    }
out:
    lw_buf_deinit(&old);
    lw_buf_deinit(&fresh);
    return rc;
}
