#include "checkpoint/manifest.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/file.h"
#include "core/memory.h"

/* How a manifest ends: as mz_manifest_build writes it, to the byte. */
static const char tail_before[] = ",\n \"crc32c\": \"", tail_after[] = "\"\n}\n";
enum { CRC_DIGITS = 8, TAIL = sizeof tail_before - 1 + CRC_DIGITS + sizeof tail_after - 1 };

/* Exactly n CRCs of 8 lower-case hex digits. */
static bool read_crcs(const char *hex, int64_t n, uint32_t *crcs)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t crc = 0;
        for (int d = 0; d < CRC_DIGITS; d++, hex++) {
            if (*hex >= '0' && *hex <= '9')
                crc = crc << 4 | (uint32_t)(*hex - '0');
            else if (*hex >= 'a' && *hex <= 'f')
                crc = crc << 4 | (uint32_t)(*hex - 'a' + 10);
            else
                return false;
        }
        crcs[i] = crc;
    }
    return true;
}

static mz_status check_own_crc(const char *path, const char *text, size_t bytes)
{
    uint32_t expected = 0;
    const char *tail = bytes < TAIL ? NULL : text + (bytes - TAIL);
    if (!tail || memcmp(tail, tail_before, sizeof tail_before - 1) ||
        memcmp(tail + sizeof tail_before - 1 + CRC_DIGITS, tail_after, sizeof tail_after - 1) ||
        !read_crcs(tail + sizeof tail_before - 1, 1, &expected))
        return mz_fail(MZ_ERR_CHECKPOINT, "%s: does not end with its own CRC-32C; it is damaged or was cut short",
                       path);
    const uint32_t found = mz_crc32c(0, text, bytes - TAIL);
    if (found != expected)
        return mz_fail(MZ_ERR_CHECKPOINT, "%s: its CRC-32C is %08x, it says %08x; the file is damaged", path, found,
                       expected);
    return MZ_OK;
}

/* While parsing. Runs refer to tensors by name first: the names become indices at the end. */
typedef struct parser {
    const char *path;
    mz_manifest *manifest;
    struct named_run *named;
    int64_t n_crcs;
} parser;

typedef struct named_run {
    const char *name;
    const json_t *shape;
    mz_manifest_run run;
} named_run;

static mz_status bad_run(const parser *p, int file, size_t run, const char *what)
{
    return mz_fail(MZ_ERR_CHECKPOINT, "%s: files[%d] (%s), run %zu: %s", p->path, file,
                   p->manifest->files[file].name ? p->manifest->files[file].name : "without name", run, what);
}

static bool read_kind(const char *name, mz_shard_kind *kind)
{
    for (int k = 0; name && k < MZ_N_SHARD_KINDS; k++)
        if (!strcmp(name, mz_shard_kind_name((mz_shard_kind)k))) {
            *kind = (mz_shard_kind)k;
            return true;
        }
    return false;
}

/* A row's last member, where it is there. */
static bool read_dtype(const json_t *row, mz_dtype *dtype)
{
    const char *name = json_string_value(json_array_get(row, 7));
    *dtype = name ? MZ_BF16 : MZ_F32;
    return json_array_size(row) == 7 ||
           (json_array_size(row) == 8 && name && !strcmp(name, mz_dtype_name(MZ_BF16)));
}

static mz_status parse_run(parser *p, int file, size_t i, const json_t *row)
{
    mz_manifest *m = p->manifest;
    named_run *named = &p->named[m->n_runs];
    mz_manifest_run *run = &named->run;
    run->file = file;
    named->name = json_string_value(json_array_get(row, 1));
    named->shape = json_array_get(row, 2);
    run->offset = json_integer_value(json_array_get(row, 3));
    run->count = json_integer_value(json_array_get(row, 4));
    run->position = json_integer_value(json_array_get(row, 5));
    const char *crcs = json_string_value(json_array_get(row, 6));
    if (!read_dtype(row, &run->dtype) || !read_kind(json_string_value(json_array_get(row, 0)), &run->kind) ||
        !named->name || !json_is_array(named->shape) || !crcs || json_array_size(named->shape) > MZ_MAX_DIMS)
        return bad_run(p, file, i,
                       "expected [kind, tensor, shape, offset, count, position, CRCs], or these and \"bf16\"");
    for (size_t k = 3; k <= 5; k++)
        if (!json_is_integer(json_array_get(row, k)))
            return bad_run(p, file, i, "offset, count and position are not all whole numbers");
    if (run->offset < 0 || run->count <= 0 || run->offset > INT64_MAX - run->count)
        return bad_run(p, file, i, "offset and count are no range of elements");
    const int64_t room = m->files[file].bytes - run->position;
    if (run->position < 0 || room < 0 || run->count > room / mz_run_bytes(run, 1))
        return bad_run(p, file, i, "its data reach beyond the end of the file");
    const int64_t n_blocks = mz_run_n_blocks(run->count);
    if ((int64_t)strlen(crcs) != n_blocks * CRC_DIGITS || !read_crcs(crcs, n_blocks, m->crcs + p->n_crcs))
        return bad_run(p, file, i, "expected 8 hex digits of CRC-32C for each block");
    run->crcs = m->crcs + p->n_crcs;
    p->n_crcs += n_blocks;
    m->n_runs++;
    return MZ_OK;
}

static int compare_position(const void *a, const void *b)
{
    const mz_manifest_run *x = a, *y = b;
    return (x->position > y->position) - (x->position < y->position);
}

static mz_status parse_file(parser *p, int i, const json_t *object)
{
    mz_manifest *m = p->manifest;
    mz_manifest_file *file = &m->files[i];
    const char *name = json_string_value(json_object_get(object, "name"));
    const char *crc = json_string_value(json_object_get(object, "frame_crc32c"));
    const json_t *bytes = json_object_get(object, "bytes"), *runs = json_object_get(object, "runs");
    if (!name || !*name || strchr(name, '/') || *name == '.' || !json_is_integer(bytes) ||
        json_integer_value(bytes) < 0 || !crc || strlen(crc) != CRC_DIGITS ||
        !read_crcs(crc, 1, &file->frame_crc) || !json_is_array(runs))
        return mz_fail(MZ_ERR_CHECKPOINT, "%s: files[%d]: expected name, bytes, frame_crc32c and runs", p->path, i);
    file->bytes = json_integer_value(bytes);
    file->first_run = m->n_runs;
    file->name = mz_strdup(name);
    if (!file->name)
        return MZ_ERR_MEMORY;
    mz_status status = MZ_OK;
    for (size_t r = 0; r < json_array_size(runs) && !status; r++)
        status = parse_run(p, i, r, json_array_get(runs, r));
    file->n_runs = m->n_runs - file->first_run;
    return status;
}

static int compare_named(const void *a, const void *b)
{
    const named_run *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    if (!order)
        order = (int)x->run.kind - (int)y->run.kind;
    return order ? order : (x->run.offset > y->run.offset) - (x->run.offset < y->run.offset);
}

/* The shape of a tensor's first run, kept in the list of tensors. */
static mz_status add_tensor(parser *p, const named_run *named)
{
    mz_checkpoint_tensor *tensor = &p->manifest->tensors[p->manifest->n_tensors];
    tensor->n_dims = (int)json_array_size(named->shape);
    tensor->numel = 1;
    for (int d = 0; d < tensor->n_dims; d++) {
        tensor->shape[d] = json_integer_value(json_array_get(named->shape, (size_t)d));
        if (tensor->shape[d] <= 0 || __builtin_mul_overflow(tensor->numel, tensor->shape[d], &tensor->numel))
            return mz_fail(MZ_ERR_CHECKPOINT, "%s: tensor \"%s\": its shape cannot be", p->path, named->name);
    }
    tensor->name = mz_strdup(named->name);
    if (!tensor->name)
        return MZ_ERR_MEMORY;
    p->manifest->n_tensors++;
    return MZ_OK;
}

static bool same_shape(const mz_checkpoint_tensor *tensor, const json_t *shape)
{
    bool same = (size_t)tensor->n_dims == json_array_size(shape);
    for (int d = 0; d < tensor->n_dims && same; d++)
        same = tensor->shape[d] == json_integer_value(json_array_get(shape, (size_t)d));
    return same;
}

/* The runs of one tensor and kind, which stand side by side, must cover it once. */
static mz_status check_cover(const parser *p, const mz_checkpoint_tensor *tensor, const named_run *runs, int64_t n)
{
    int64_t end = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!same_shape(tensor, runs[i].shape))
            return mz_fail(MZ_ERR_CHECKPOINT, "%s: tensor \"%s\" has different shapes in different files", p->path,
                           tensor->name);
        if (runs[i].run.offset != end)
            return mz_fail(MZ_ERR_CHECKPOINT, "%s: tensor \"%s\", %s: elements from %lld on are %s", p->path,
                           tensor->name, mz_shard_kind_name(runs[i].run.kind),
                           (long long)(runs[i].run.offset < end ? runs[i].run.offset : end),
                           runs[i].run.offset < end ? "there twice" : "missing");
        end += runs[i].run.count;
    }
    if (end != tensor->numel)
        return mz_fail(MZ_ERR_CHECKPOINT, "%s: tensor \"%s\", %s: %lld elements in the files, %lld in its shape",
                       p->path, tensor->name, mz_shard_kind_name(runs[0].run.kind), (long long)end,
                       (long long)tensor->numel);
    return MZ_OK;
}

/* From runs with names to tensors with runs. */
static mz_status group_runs(parser *p)
{
    mz_manifest *m = p->manifest;
    mz_status status = MZ_OK;
    qsort(p->named, (size_t)m->n_runs, sizeof *p->named, compare_named);
    for (int64_t i = 0, end; i < m->n_runs && !status; i = end) {
        const named_run *first = &p->named[i];
        for (end = i + 1; end < m->n_runs && !strcmp(p->named[end].name, first->name) &&
                          p->named[end].run.kind == first->run.kind;)
            end++;
        mz_checkpoint_tensor *tensor = m->n_tensors ? &m->tensors[m->n_tensors - 1] : NULL;
        if (!tensor || strcmp(tensor->name, first->name)) {
            if ((status = add_tensor(p, first)))
                break;
            tensor = &m->tensors[m->n_tensors - 1];
        }
        tensor->kinds[first->run.kind] = true;
        tensor->dtypes[first->run.kind] = first->run.dtype;
        status = check_cover(p, tensor, first, end - i);
        for (int64_t r = i; r < end; r++) {
            m->runs[r] = p->named[r].run;
            m->runs[r].tensor = m->n_tensors - 1;
        }
    }
    return status;
}

static mz_status index_runs(mz_manifest *m)
{
    const size_t n = (size_t)m->n_tensors * MZ_N_SHARD_KINDS;
    m->first_run = mz_calloc(n + 1, sizeof *m->first_run);
    if (!m->first_run)
        return MZ_ERR_MEMORY;
    int64_t run = 0;
    for (size_t i = 0; i < n; i++) {
        m->first_run[i] = run;
        while (run < m->n_runs && (size_t)m->runs[run].tensor * MZ_N_SHARD_KINDS + (size_t)m->runs[run].kind == i)
            run++;
    }
    m->first_run[n] = m->n_runs;
    return MZ_OK;
}

/* by_file: each file's runs in order of their bytes, apart from each other. */
static mz_status order_by_file(const parser *p)
{
    mz_manifest *m = p->manifest;
    int64_t *fill = mz_calloc((size_t)m->n_files, sizeof *fill);
    if (!fill)
        return MZ_ERR_MEMORY;
    for (int64_t r = 0; r < m->n_runs; r++) {
        const int f = m->runs[r].file;
        m->by_file[m->files[f].first_run + fill[f]++] = m->runs[r];
    }
    mz_free(fill);
    for (int f = 0; f < m->n_files; f++) {
        mz_manifest_run *runs = m->by_file + m->files[f].first_run;
        qsort(runs, (size_t)m->files[f].n_runs, sizeof *runs, compare_position);
        for (int64_t r = 1; r < m->files[f].n_runs; r++)
            if (runs[r].position - runs[r - 1].position < mz_run_bytes(&runs[r - 1], runs[r - 1].count))
                return mz_fail(
                    MZ_ERR_CHECKPOINT, "%s: files[%d] (%s): the data of tensors \"%s\" and \"%s\" overlap", p->path,
                    f, m->files[f].name, m->tensors[runs[r - 1].tensor].name, m->tensors[runs[r].tensor].name);
    }
    return MZ_OK;
}

/* Room for everything, from what the JSON holds. */
static mz_status allocate(parser *p, const json_t *files)
{
    mz_manifest *m = p->manifest;
    size_t n_runs = 0, n_crcs = 0, i, r;
    const json_t *file, *run;
    json_array_foreach(files, i, file)
    {
        json_array_foreach(json_object_get(file, "runs"), r, run)
        {
            n_runs++;
            n_crcs += json_string_length(json_array_get(run, 6)) / CRC_DIGITS;
        }
    }
    m->n_files = (int)json_array_size(files);
    m->files = mz_calloc(json_array_size(files), sizeof *m->files);
    m->runs = mz_calloc(n_runs, sizeof *m->runs);
    m->by_file = mz_calloc(n_runs, sizeof *m->by_file);
    m->tensors = mz_calloc(n_runs, sizeof *m->tensors);
    m->crcs = mz_calloc(n_crcs, sizeof *m->crcs);
    p->named = mz_calloc(n_runs, sizeof *p->named);
    return m->files && m->runs && m->by_file && m->tensors && m->crcs && p->named ? MZ_OK : MZ_ERR_MEMORY;
}

static mz_status parse_header(parser *p, const json_t *root)
{
    mz_manifest *m = p->manifest;
    const char *format = json_string_value(json_object_get(root, "format"));
    const json_t *step = json_object_get(root, "step"), *size = json_object_get(root, "world_size");
    const json_t *state = json_object_get(root, "state");
    const json_int_t version = json_integer_value(json_object_get(root, "version"));
    if (!format || strcmp(format, MZ_MANIFEST_FORMAT))
        return mz_fail(MZ_ERR_CHECKPOINT, "%s: \"format\" is not \"%s\"", p->path, MZ_MANIFEST_FORMAT);
    if (version != MZ_MANIFEST_VERSION)
        return mz_fail(MZ_ERR_CHECKPOINT, "%s: version %lld of the format; this mpizero reads version %d", p->path,
                       (long long)version, MZ_MANIFEST_VERSION);
    if (!json_is_integer(step) || json_integer_value(step) < 0 || !json_is_object(state) ||
        !json_is_integer(size) || json_integer_value(size) <= 0 || (size_t)json_integer_value(size) > INT32_MAX ||
        json_array_size(json_object_get(root, "files")) != (size_t)json_integer_value(size))
        return mz_fail(MZ_ERR_CHECKPOINT, "%s: expected step, state, world_size and as many files", p->path);
    m->step = json_integer_value(step);
    m->world_size = (int)json_integer_value(size);
    char *text = json_dumps(state, JSON_COMPACT);
    m->state = text ? mz_strdup(text) : NULL;
    free(text);
    return m->state ? MZ_OK : MZ_ERR_MEMORY;
}

mz_status mz_manifest_parse(const char *path, const char *text, size_t bytes, mz_manifest *manifest)
{
    mz_manifest result = {0};
    parser p = {.path = path, .manifest = &result};
    json_error_t error;
    json_t *root = NULL;
    mz_status status = check_own_crc(path, text, bytes);
    if (status)
        return status;
    root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(root)) {
        status = mz_fail(MZ_ERR_CHECKPOINT, "%s:%d: not a JSON object: %s", path, root ? 1 : error.line,
                         root ? "another value" : error.text);
        goto out;
    }
    const json_t *files = json_object_get(root, "files");
    status = parse_header(&p, root);
    if (!status)
        status = allocate(&p, files);
    for (int i = 0; i < result.n_files && !status; i++)
        status = parse_file(&p, i, json_array_get(files, (size_t)i));
    if (!status)
        status = group_runs(&p);
    if (!status)
        status = index_runs(&result);
    if (!status)
        status = order_by_file(&p);
out:
    mz_free(p.named);
    json_decref(root);
    if (status)
        mz_manifest_free(&result);
    else
        *manifest = result;
    return status;
}

void mz_manifest_free(mz_manifest *manifest)
{
    for (int i = 0; manifest->files && i < manifest->n_files; i++)
        mz_free(manifest->files[i].name);
    for (int i = 0; manifest->tensors && i < manifest->n_tensors; i++)
        mz_free((char *)manifest->tensors[i].name);
    mz_free(manifest->files);
    mz_free(manifest->tensors);
    mz_free(manifest->runs);
    mz_free(manifest->by_file);
    mz_free(manifest->first_run);
    mz_free(manifest->crcs);
    mz_free(manifest->state);
    *manifest = (mz_manifest){0};
}

void mz_manifest_runs(const mz_manifest *manifest, int tensor, mz_shard_kind kind, int64_t *begin, int64_t *end)
{
    const int64_t *first = manifest->first_run + (int64_t)tensor * MZ_N_SHARD_KINDS + (int)kind;
    *begin = first[0];
    *end = first[1];
}

static int compare_tensor_name(const void *name, const void *tensor)
{
    return strcmp(name, ((const mz_checkpoint_tensor *)tensor)->name);
}

int mz_manifest_find(const mz_manifest *manifest, const char *name)
{
    const mz_checkpoint_tensor *found = bsearch(name, manifest->tensors, (size_t)manifest->n_tensors,
                                                sizeof *manifest->tensors, compare_tensor_name);
    return found ? (int)(found - manifest->tensors) : -1;
}
