#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/tools.h"
#include "core/memory.h"

/* 124439808 as 124,439,808. */
static const char *grouped(json_int_t value, char *buffer, size_t room)
{
    char digits[24];
    const int n = snprintf(digits, sizeof digits, "%" JSON_INTEGER_FORMAT, value);
    size_t used = 0;
    for (int i = 0; i < n && used + 2 < room; i++) {
        if (i && (n - i) % 3 == 0)
            buffer[used++] = ',';
        buffer[used++] = digits[i];
    }
    buffer[used] = '\0';
    return buffer;
}

static json_int_t integer(const json_t *facts, const char *key)
{
    return json_integer_value(json_object_get(facts, key));
}

static const char *text_of(const json_t *facts, const char *key)
{
    const char *text = json_string_value(json_object_get(facts, key));
    return text ? text : "";
}

static void print_list(FILE *out, const json_t *list, const char *between)
{
    size_t i;
    const json_t *item;
    json_array_foreach(list, i, item)
    {
        if (i)
            fputs(between, out);
        if (json_is_integer(item))
            fprintf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(item));
        else
            fputs(json_string_value(item), out);
    }
}

static void print_head(FILE *out, const json_t *facts)
{
    char buffer[40];
    const bool whole = json_is_true(json_object_get(facts, "whole"));
    fprintf(out, "%s %s: %s\n", text_of(facts, "kind"), text_of(facts, "path"),
            !whole                                             ? "DAMAGED"
            : json_is_true(json_object_get(facts, "verified")) ? "whole, all checksums right"
                                                               : "whole");
    if (!whole)
        fprintf(out, "  %s\n", text_of(facts, "problem"));
    if (!json_object_get(facts, "tensors"))
        return;
    if (json_object_get(facts, "step"))
        fprintf(out, "  step %" JSON_INTEGER_FORMAT ", saved by %" JSON_INTEGER_FORMAT " ranks\n",
                integer(facts, "step"), integer(facts, "world_size"));
    fprintf(out, "  %" JSON_INTEGER_FORMAT " tensors, %s parameters", integer(facts, "n_tensors"),
            grouped(integer(facts, "n_parameters"), buffer, sizeof buffer));
    fprintf(out, ", %s bytes\n", grouped(integer(facts, "bytes"), buffer, sizeof buffer));
}

static void print_tensors(FILE *out, const json_t *facts)
{
    const json_t *tensors = json_object_get(facts, "tensors"), *tensor;
    size_t i;
    int width = 0;
    json_array_foreach(tensors, i, tensor)
    {
        const int n = (int)strlen(text_of(tensor, "name"));
        width = n > width ? n : width;
    }
    json_array_foreach(tensors, i, tensor)
    {
        fprintf(out, "  %-*s  %-5s [", width, text_of(tensor, "name"), text_of(tensor, "dtype"));
        print_list(out, json_object_get(tensor, "shape"), ", ");
        fputs("]", out);
        if (json_object_get(facts, "step")) {
            fputs("  ", out);
            print_list(out, json_object_get(tensor, "kinds"), " ");
        }
        fputs("\n", out);
    }
}

char *mz_inspect_text(const json_t *facts)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        return NULL;
    print_head(out, facts);
    print_tensors(out, facts);
    const bool good = !fclose(out);
    char *copy = good ? mz_strdup(text) : NULL;
    free(text);
    return copy;
}
