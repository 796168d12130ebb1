/* A main for fuzz targets built without libFuzzer.
 *
 *     fuzz_NAME                     runs the seeds, then mutations of them for a second
 *     fuzz_NAME -t SECONDS [PATH…]  the same with other seeds (files or folders), for that long
 *     fuzz_NAME -t 0 FILE           runs one input, such as one that was left by a crash
 *
 * The generator is counter-based: the same seeds and rounds give the same inputs. An input that crashes, or runs
 * longer than HANG_SECONDS, is left in a file named on standard error. */
#include <dirent.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/rng.h"
#include "tests/fuzz/fuzz.h"

enum { MAX_SEEDS = 1000, MAX_BYTES = 1 << 16, HANG_SECONDS = 20 };

typedef struct input {
    uint8_t *data;
    size_t bytes;
} input;

static input seeds[MAX_SEEDS];
static int n_seeds;

/* The input in hand, for the handler. */
static const uint8_t *current;
static size_t current_bytes;
static char crash_path[256];

static void save_current(void)
{
    static const char message[] = "\nthe input is left in ";
    const int fd = open(crash_path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (fd < 0 || write(fd, current, current_bytes) < 0)
        return;
    close(fd);
    if (write(STDERR_FILENO, message, sizeof message - 1) > 0 &&
        write(STDERR_FILENO, crash_path, strlen(crash_path)) > 0 && write(STDERR_FILENO, "\n", 1) > 0)
        return;
}

static void on_signal(int number)
{
    save_current();
    signal(number, SIG_DFL);
    raise(number);
}

/* There when a sanitizer is linked in. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void catch_crashes(const char *name)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM};
    snprintf(crash_path, sizeof crash_path, "crash-%s", name);
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(save_current);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        signal(signals[i], on_signal);
}

static void run_input(const uint8_t *data, size_t bytes)
{
    uint8_t *copy = malloc(bytes ? bytes : 1); /* its own block, so that reading past its end is found */
    if (!copy)
        abort();
    memcpy(copy, data, bytes);
    current = copy;
    current_bytes = bytes;
    alarm(HANG_SECONDS);
    LLVMFuzzerTestOneInput(copy, bytes);
    alarm(0);
    free(copy);
}

static void add_seed(const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file || n_seeds == MAX_SEEDS) {
        fprintf(stderr, "%s: cannot be read, or too many seeds\n", path);
        exit(1);
    }
    input *seed = &seeds[n_seeds++];
    seed->data = malloc(MAX_BYTES);
    seed->bytes = seed->data ? fread(seed->data, 1, MAX_BYTES, file) : 0;
    fclose(file);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void add_seeds(const char *path)
{
    struct dirent **entries;
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode)) {
        add_seed(path);
        return;
    }
    const int n = scandir(path, &entries, NULL, by_name); /* in an order that every machine has */
    for (int i = 0; i < n; i++) {
        char name[4096];
        snprintf(name, sizeof name, "%s/%s", path, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.')
            add_seed(name);
        free(entries[i]);
    }
    free(entries);
}

/* ---- mutations ---- */

static uint64_t generator_round;
static uint64_t generator_draw;

static size_t below(size_t n)
{
    return n ? mz_rng_u32(20, 0, generator_round, generator_draw++) % n : 0;
}

/* Inserts bytes at a place, as far as there is room. */
static size_t insert(uint8_t *data, size_t bytes, size_t at, const uint8_t *more, size_t n_more)
{
    if (bytes + n_more > MAX_BYTES)
        return bytes;
    memmove(data + at + n_more, data + at, bytes - at);
    memcpy(data + at, more, n_more);
    return bytes + n_more;
}

static size_t mutate_once(uint8_t *data, size_t bytes)
{
    static const uint8_t telling[] = "{}[]\",:\\/*#=\n\r\t -+.0123456789eE\x7f\x80\xbf\xc2\xe2\xf0\xff";
    static const char *const words[] = {
        "true",   "null", "\"id\"", "1e999", "9223372036854775808", "\\u0000", "\\ud800",
        "====\n", "/*",   "//",     "-0",    "18446744073709551615"};
    uint8_t piece[256];
    const size_t at = below(bytes + 1), n = below(bytes - at < sizeof piece ? bytes - at + 1 : sizeof piece);
    const char *word = words[below(sizeof words / sizeof *words)];
    const input *other = &seeds[below((size_t)n_seeds)];
    const size_t from = below(other->bytes + 1), n_from = below(other->bytes - from + 1);
    switch (below(9)) {
    case 0: /* flip a bit */
        if (at < bytes)
            data[at] ^= (uint8_t)(1u << below(8));
        return bytes;
    case 1: /* another byte */
        if (at < bytes)
            data[at] = (uint8_t)below(256);
        return bytes;
    case 2: /* a byte that means something */
        if (at < bytes)
            data[at] = telling[below(sizeof telling - 1)];
        return bytes;
    case 3:
        return insert(data, bytes, at, &telling[below(sizeof telling - 1)], 1);
    case 4: /* cut out */
        memmove(data + at, data + at + n, bytes - at - n);
        return bytes - n;
    case 5: /* repeat */
        memcpy(piece, data + at, n);
        return insert(data, bytes, at, piece, n);
    case 6:
        return insert(data, bytes, at, (const uint8_t *)word, strlen(word));
    case 7: /* a piece of another seed */
        return insert(data, bytes, at, other->data + from, n_from);
    default: /* cut short */
        return below(8) == 0 ? at : bytes;
    }
}

static void mutate_for(double seconds)
{
    uint8_t *data = malloc(MAX_BYTES);
    const double end = mz_clock_seconds() + seconds;
    while (data && mz_clock_seconds() < end) {
        generator_draw = 0;
        const input *seed = &seeds[below((size_t)n_seeds)];
        size_t bytes = seed->bytes;
        memcpy(data, seed->data, bytes);
        for (size_t n = 1 + below(6); n > 0; n--)
            bytes = mutate_once(data, bytes);
        run_input(data, bytes);
        generator_round++;
    }
    free(data);
}

int main(int argc, char **argv)
{
    const char *name = basename(argv[0]), *srcdir = getenv("srcdir");
    double seconds = 1;
    int first = 1;
    name = strncmp(name, "fuzz_", 5) == 0 ? name + 5 : name;
    if (argc > 2 && strcmp(argv[1], "-t") == 0) {
        seconds = atof(argv[2]);
        first = 3;
    }
    catch_crashes(name);
    for (int i = first; i < argc; i++)
        add_seeds(argv[i]);
    if (first >= argc) {
        char folder[4096];
        snprintf(folder, sizeof folder, "%s/tests/fuzz/seeds/%s", srcdir ? srcdir : ".", name);
        add_seeds(folder);
    }
    for (int i = 0; i < n_seeds; i++)
        run_input(seeds[i].data, seeds[i].bytes);
    mutate_for(seconds);
    printf("%s: %d seeds, %llu mutations, no crash\n", name, n_seeds, (unsigned long long)generator_round);
    for (int i = 0; i < n_seeds; i++)
        free(seeds[i].data);
    return 0;
}
