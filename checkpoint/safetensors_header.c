#include "checkpoint/safetensors_header.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/memory.h"

/* MZ_N_DTYPES: listed and checked, but without a counterpart in mpizero. */
static const struct element_type {
    const char *name;
    int64_t bytes;
    mz_dtype dtype;
} element_types[] = {
    {"F64", 8, MZ_F64},
    {"F32", 4, MZ_F32},
    {"F16", 2, MZ_F16},
    {"BF16", 2, MZ_BF16},
    {"I64", 8, MZ_I64},
    {"I32", 4, MZ_I32},
    {"U8", 1, MZ_U8},
    {"U64", 8, MZ_N_DTYPES},
    {"U32", 4, MZ_N_DTYPES},
    {"I16", 2, MZ_N_DTYPES},
    {"U16", 2, MZ_N_DTYPES},
    {"I8", 1, MZ_N_DTYPES},
    {"BOOL", 1, MZ_N_DTYPES},
    {"F8_E4M3", 1, MZ_N_DTYPES},
    {"F8_E5M2", 1, MZ_N_DTYPES},
    {"F8_E8M0", 1, MZ_N_DTYPES},
};
#define N_ELEMENT_TYPES (sizeof element_types / sizeof element_types[0])

const char *mz_safetensors_dtype_name(mz_dtype dtype)
{
    for (size_t i = 0; i < N_ELEMENT_TYPES; i++)
        if (element_types[i].dtype == dtype && dtype != MZ_N_DTYPES)
            return element_types[i].name;
    return NULL;
}

static const struct element_type *find_type(const char *name)
{
    for (size_t i = 0; i < N_ELEMENT_TYPES; i++)
        if (!strcmp(element_types[i].name, name))
            return &element_types[i];
    return NULL;
}

/* Where the parts of a file lie. */
typedef struct layout {
    const char *path;
    const uint8_t *data; /* behind the header */
    uint64_t data_bytes;
} layout;

static mz_status bad_tensor(const layout *at, const char *name, const char *what)
{
    return mz_fail(MZ_ERR_MODEL, "%s: tensor \"%.200s\": %s; the file is damaged or not safetensors", at->path,
                   name, what);
}

static mz_status parse_shape(const layout *at, const char *name, const json_t *shape, mz_weights_tensor *tensor)
{
    if (!json_is_array(shape))
        return bad_tensor(at, name, "no list \"shape\"");
    if (json_array_size(shape) > MZ_MAX_DIMS)
        return mz_fail(MZ_ERR_MODEL, "%s: tensor \"%.200s\" has %zu dimensions; at most %d can be read", at->path,
                       name, json_array_size(shape), MZ_MAX_DIMS);
    tensor->n_dims = (int)json_array_size(shape);
    tensor->numel = 1;
    for (int i = 0; i < tensor->n_dims; i++) {
        const json_t *dim = json_array_get(shape, (size_t)i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return bad_tensor(at, name, "a dimension of its shape is not a whole number from 0 on");
        tensor->shape[i] = json_integer_value(dim);
        if (__builtin_mul_overflow(tensor->numel, tensor->shape[i], &tensor->numel))
            return bad_tensor(at, name, "its shape has more elements than 2^63");
    }
    return MZ_OK;
}

static mz_status parse_offsets(const layout *at, const char *name, const json_t *offsets, int64_t element_bytes,
                               mz_weights_tensor *tensor)
{
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return bad_tensor(at, name, "\"data_offsets\" is not a list of two whole numbers");
    json_int_t first = json_integer_value(begin), last = json_integer_value(end);
    if (first < 0 || last < first)
        return bad_tensor(at, name, "\"data_offsets\" run backwards or begin below 0");
    if ((uint64_t)last > at->data_bytes)
        return mz_fail(
            MZ_ERR_MODEL,
            "%s: tensor \"%.200s\" ends at byte %lld of the data, but the file has %llu; it was cut short "
            "(copy or download it again)",
            at->path, name, (long long)last, (unsigned long long)at->data_bytes);
    int64_t expected;
    if (__builtin_mul_overflow(tensor->numel, element_bytes, &expected) || expected != last - first)
        return mz_fail(
            MZ_ERR_MODEL,
            "%s: tensor \"%.200s\": shape and dtype %s do not fit the %lld bytes of its \"data_offsets\"", at->path,
            name, tensor->dtype_name, (long long)(last - first));
    tensor->data = at->data + first;
    return MZ_OK;
}

static mz_status parse_tensor(const layout *at, const char *name, const json_t *entry, mz_weights_tensor *tensor)
{
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    if (!dtype)
        return bad_tensor(at, name, "no \"dtype\"");
    const struct element_type *type = find_type(dtype);
    if (!type)
        return mz_fail(MZ_ERR_MODEL, "%s: tensor \"%.200s\": unknown dtype \"%.40s\"", at->path, name, dtype);
    tensor->dtype = type->dtype;
    tensor->dtype_name = type->name;
    mz_status status = parse_shape(at, name, json_object_get(entry, "shape"), tensor);
    if (!status)
        status = parse_offsets(at, name, json_object_get(entry, "data_offsets"), type->bytes, tensor);
    if (!status && !(tensor->name = mz_strdup(name)))
        status = MZ_ERR_MEMORY;
    return status;
}

int64_t mz_weights_tensor_bytes(const mz_weights_tensor *tensor)
{
    return tensor->numel * find_type(tensor->dtype_name)->bytes;
}

/* By place; an empty tensor stands before the one that begins at the same byte. */
static int compare_data(const void *a, const void *b)
{
    const mz_weights_tensor *x = a, *y = b;
    if (x->data != y->data)
        return (const uint8_t *)x->data < (const uint8_t *)y->data ? -1 : 1;
    return (x->numel > 0) - (y->numel > 0);
}

/* The format allows neither holes nor overlaps. */
static mz_status check_cover(const layout *at, mz_weights_tensor *tensors, int n)
{
    qsort(tensors, (size_t)n, sizeof *tensors, compare_data);
    const uint8_t *end = at->data;
    for (int i = 0; i < n; i++) {
        const uint8_t *begin = tensors[i].data;
        if (begin != end)
            return bad_tensor(at, tensors[i].name,
                              begin < end ? "its data overlap those of another tensor"
                                          : "bytes before its data belong to no tensor");
        end = begin + mz_weights_tensor_bytes(&tensors[i]);
    }
    uint64_t used = (uint64_t)(end - at->data);
    if (used != at->data_bytes)
        return mz_fail(MZ_ERR_MODEL, "%s: %llu bytes of data, but the tensors take %llu; the file is damaged",
                       at->path, (unsigned long long)at->data_bytes, (unsigned long long)used);
    return MZ_OK;
}

static mz_status list_tensors(const layout *at, json_t *root, mz_weights_tensor **tensors, int *n)
{
    size_t room = json_object_size(root);
    mz_weights_tensor *list = mz_calloc(room, sizeof *list);
    if (!list)
        return MZ_ERR_MEMORY;
    int count = 0;
    mz_status status = MZ_OK;
    const char *name;
    json_t *entry;
    json_object_foreach(root, name, entry)
    {
        if (!strcmp(name, "__metadata__"))
            continue;
        if ((status = parse_tensor(at, name, entry, &list[count])))
            break;
        count++;
    }
    if (!status)
        status = check_cover(at, list, count);
    if (status) {
        mz_safetensors_free(list, count);
        return status;
    }
    *tensors = list;
    *n = count;
    return MZ_OK;
}

mz_status mz_safetensors_parse(const char *path, const uint8_t *file, size_t bytes, mz_weights_tensor **tensors,
                               int *n)
{
    if (bytes < 8)
        return mz_fail(MZ_ERR_MODEL, "%s: %zu bytes are too few for a safetensors file", path, bytes);
    uint64_t header_bytes = 0;
    for (int i = 7; i >= 0; i--)
        header_bytes = header_bytes << 8 | file[i];
    if (header_bytes > MZ_SAFETENSORS_MAX_HEADER)
        return mz_fail(MZ_ERR_MODEL, "%s: a header of %llu bytes (at most %llu): this is no safetensors file", path,
                       (unsigned long long)header_bytes, (unsigned long long)MZ_SAFETENSORS_MAX_HEADER);
    if (header_bytes > bytes - 8)
        return mz_fail(MZ_ERR_MODEL,
                       "%s: the header says %llu bytes, the file has %zu behind it; it was cut short (copy or "
                       "download it again)",
                       path, (unsigned long long)header_bytes, bytes - 8);
    json_error_t error;
    json_t *root = json_loadb((const char *)file + 8, (size_t)header_bytes, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(root)) {
        json_decref(root);
        return mz_fail(MZ_ERR_MODEL, "%s: the header is no JSON object: %s (byte %d)", path,
                       root ? "another kind of value" : error.text, root ? 8 : error.position + 8);
    }
    const layout at = {path, file + 8 + header_bytes, bytes - 8 - header_bytes};
    mz_status status = list_tensors(&at, root, tensors, n);
    json_decref(root);
    return status;
}

void mz_safetensors_free(mz_weights_tensor *tensors, int n)
{
    for (int i = 0; tensors && i < n; i++)
        mz_free((char *)tensors[i].name);
    mz_free(tensors);
}
