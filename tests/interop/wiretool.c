/*
 * Golden bytes of the wire, for C and for other languages.
 *
 *     wiretool make DIR        write every message and dtype into DIR: NAME.bin and NAME.json
 *     wiretool check DIR       every NAME.bin decodes and encodes to the same bytes again, and DIR
 * has just what `make` writes, so no type, field or dtype is left out wiretool canon IN OUT decode
 * IN, whatever its key order and integer forms; encode to OUT
 *
 * NAME.bin: u32 number of frames, then u32 length and bytes of each, little-endian. NAME.json is
 * the header for people and for Python, with {"$bin": hex} and {"$ext": [type, hex]} for what JSON
 * lacks. It is made from the bytes by msgpack-c alone, not from the message.
 */
#include <dirent.h>
#include <inttypes.h>
#include <msgpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/proto/fill.h"

static int fail(const char *name, const lw_err *err)
{
    fprintf(stderr, "%s: %s: %s\n", name, lw_status_name(err->code), err->text);
    return 1;
}

/* ---- JSON of a header ---- */

static void put_hex(FILE *f, const char *p, uint32_t n)
{
    fputc('"', f);
    for (uint32_t i = 0; i < n; i++)
        fprintf(f, "%02x", (unsigned char)p[i]);
    fputc('"', f);
}

static void put_text(FILE *f, const char *p, uint32_t n)
{
    fputc('"', f);
    for (uint32_t i = 0; i < n; i++)
        if (p[i] == '"' || p[i] == '\\')
            fprintf(f, "\\%c", p[i]);
        else if ((unsigned char)p[i] < 0x20)
            fprintf(f, "\\u%04x", (unsigned)p[i]);
        else
            fputc(p[i], f);
    fputc('"', f);
}

/* 17 digits name a double; a point or an exponent keeps it a float in Python. */
static void put_double(FILE *f, double v)
{
    char s[40];

    snprintf(s, sizeof(s), "%.17g", v);
    fprintf(f, "%s%s", s, strpbrk(s, ".e") ? "" : ".0");
}

static void put_json(FILE *f, const msgpack_object *o, int indent)
{
    switch (o->type) {
    case MSGPACK_OBJECT_BOOLEAN:
        fputs(o->via.boolean ? "true" : "false", f);
        break;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        fprintf(f, "%" PRIu64, o->via.u64);
        break;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        fprintf(f, "%" PRId64, o->via.i64);
        break;
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        put_double(f, o->via.f64);
        break;
    case MSGPACK_OBJECT_STR:
        put_text(f, o->via.str.ptr, o->via.str.size);
        break;
    case MSGPACK_OBJECT_BIN:
        fputs("{\"$bin\": ", f);
        put_hex(f, o->via.bin.ptr, o->via.bin.size);
        fputc('}', f);
        break;
    case MSGPACK_OBJECT_EXT:
        fprintf(f, "{\"$ext\": [%d, ", o->via.ext.type);
        put_hex(f, o->via.ext.ptr, o->via.ext.size);
        fputs("]}", f);
        break;
    case MSGPACK_OBJECT_ARRAY:
        fputc('[', f);
        for (uint32_t i = 0; i < o->via.array.size; i++) {
            fputs(i ? ", " : "", f);
            put_json(f, &o->via.array.ptr[i], indent);
        }
        fputc(']', f);
        break;
    case MSGPACK_OBJECT_MAP:
        fputs("{\n", f);
        for (uint32_t i = 0; i < o->via.map.size; i++) {
            fprintf(f, "%*s", indent + 2, "");
            put_json(f, &o->via.map.ptr[i].key, indent);
            fputs(": ", f);
            put_json(f, &o->via.map.ptr[i].val, indent + 2);
            fputs(i + 1 < o->via.map.size ? ",\n" : "\n", f);
        }
        fprintf(f, "%*s}", indent, "");
        break;
    default:
        fputs("null", f);
        break;
    }
}

static bool write_json(const char *path, const lw_packet *p)
{
    FILE *f = fopen(path, "w");
    msgpack_unpacked u;
    bool ok;

    msgpack_unpacked_init(&u);
    ok = f && msgpack_unpack_next(&u, lw_frame_data(p->frames[0]), lw_frame_size(p->frames[0]),
                                  NULL) == MSGPACK_UNPACK_SUCCESS;
    if (ok)
        put_json(f, &u.data, 0);
    msgpack_unpacked_destroy(&u);
    if (f)
        fputc('\n', f);
    return f && fclose(f) == 0 && ok;
}

/* ---- make ---- */

typedef int golden_fn(const char *dir, const char *name, const lw_packet *p);

static int write_golden(const char *dir, const char *name, const lw_packet *p)
{
    char path[4096];
    bool ok;

    snprintf(path, sizeof(path), "%s/%s.bin", dir, name);
    ok = fill_write(path, p);
    snprintf(path, sizeof(path), "%s/%s.json", dir, name);
    ok = ok && write_json(path, p);
    if (!ok)
        perror(path);
    return !ok;
}

static int compare_golden(const char *dir, const char *name, const lw_packet *p)
{
    lw_packet q = { 0 };
    char path[4096];
    bool ok;

    snprintf(path, sizeof(path), "%s/%s.bin", dir, name);
    ok = fill_read(path, &q) && fill_same(p, &q);
    lw_packet_clear(&q);
    if (!ok)
        fprintf(stderr, "%s: is missing, or the encoder writes something else now\n", path);
    return !ok;
}

static int with_msg(golden_fn *fn, const char *dir, const char *name, const lw_msg *m)
{
    lw_err err = { 0 };
    lw_packet p;
    int bad;

    if (lw_msg_encode(m, &p, &err) != LW_OK)
        return fail(name, &err);
    bad = fn(dir, name, &p);
    lw_packet_clear(&p);
    return bad;
}

static int each_golden(golden_fn *fn, const char *dir)
{
    lw_arena a;
    lw_msg m;
    char name[64];
    int bad = 0;

    lw_arena_init(&a, "golden", 0);
    for (int type = 1; type < LW_N_MSG_TYPES; type++)
        for (int least = 0; least < 2; least++) {
            fill_msg(&m, (lw_msg_type)type, least, &a);
            snprintf(name, sizeof(name), "%s_%s", lw_msg_type_name((lw_msg_type)type),
                     least ? "least" : "full");
            bad |= with_msg(fn, dir, name, &m);
        }
    for (int d = 1; d < LW_N_DTYPES; d++)
        for (int outside = 0; outside < 2; outside++) {
            lw_tensor t = fill_tensor((lw_dtype)d);
            lw_frame *f = outside ? lw_frame_copy(t.data, lw_tensor_bytes(&t)) : NULL;
            lw_err err = { 0 };

            fill_msg(&m, LW_MSG_RESULT, true, &a);
            if (lw_msg_tensor_add(&m, "x", &t, f, &err) != LW_OK)
                return fail("tensor", &err);
            snprintf(name, sizeof(name), "tensor_%s_%s", lw_dtype_name((lw_dtype)d),
                     outside ? "frame" : "inline");
            bad |= with_msg(fn, dir, name, &m);
            lw_frame_unref(&f);
        }
    lw_arena_deinit(&a);
    return bad;
}

/* ---- check and canon ---- */

static int canon(const char *in, const char *out)
{
    lw_packet p = { 0 }, q = { 0 };
    lw_err err = { 0 };
    lw_arena a;
    lw_msg m;
    int bad = 0;

    lw_arena_init(&a, "canon", 0);
    if (!fill_read(in, &p)) {
        fprintf(stderr, "%s: not a file of frames\n", in);
        bad = 1;
    } else if (lw_msg_decode(&p, &a, &m, &err) != LW_OK || lw_msg_encode(&m, &q, &err) != LW_OK) {
        bad = fail(in, &err);
    } else if (out ? !fill_write(out, &q) : !fill_same(&p, &q)) {
        fprintf(stderr, "%s: %s\n", in, out ? "cannot be written" : "encodes to other bytes");
        bad = 1;
    }
    lw_packet_clear(&p);
    lw_packet_clear(&q);
    lw_arena_deinit(&a);
    return bad;
}

static int check(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *e;
    int n = 0, bad = 0;

    while (d && (e = readdir(d))) {
        const char *dot = strrchr(e->d_name, '.');
        char path[4096];

        if (!dot || strcmp(dot, ".bin") != 0)
            continue;
        snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
        bad |= canon(path, NULL);
        n++;
    }
    if (d)
        closedir(d);
    printf("%d golden messages\n", n);
    return bad | each_golden(compare_golden, dir);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "make") == 0)
        return each_golden(write_golden, argv[2]);
    if (argc == 3 && strcmp(argv[1], "check") == 0)
        return check(argv[2]);
    if (argc == 4 && strcmp(argv[1], "canon") == 0)
        return canon(argv[2], argv[3]);
    fprintf(stderr, "usage: wiretool make DIR | check DIR | canon IN OUT\n");
    return 2;
}
