#include "tests/fuzz/use_config.h"

#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "mpizero/config.h"
#include "tests/fuzz/fuzz.h"

static char folder[] = "/tmp/mpizero-fuzz-XXXXXX";
static char path[64], json_path[64];

static void clean_up(void)
{
    unlink(path);
    unlink(json_path);
    rmdir(folder);
}

static void set_up(const char *name)
{
    if (*path)
        return;
    FUZZ_REQUIRE(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    snprintf(json_path, sizeof json_path, "%s/resolved.json", folder);
    atexit(clean_up);
    mz_log_set_level(MZ_LOG_ERROR);
}

static void write_file(const char *to, const void *data, size_t bytes)
{
    FILE *file = fopen(to, "wb");
    FUZZ_REQUIRE(file != NULL);
    FUZZ_REQUIRE(fwrite(data, 1, bytes, file) == bytes);
    fclose(file);
}

void use_config(const char *name, const uint8_t *data, size_t bytes)
{
    enum { RANKS = 2 };
    mz_config config, again;
    mz_config_defaults flags;
    set_up(name);
    mz_config_defaults_init(&flags);
    flags.hidden_size = 64;
    write_file(path, data, bytes);
    if (mz_config_load(path, &flags, RANKS, &config)) {
        FUZZ_REQUIRE(*mz_last_error() != '\0');
        return;
    }
    FUZZ_REQUIRE(config.train_batch_size == config.micro_batch_size * config.gradient_accumulation_steps * RANKS);
    FUZZ_REQUIRE(config.zero.stage >= 0 && config.zero.stage <= 3);
    char *text = mz_config_to_json(&config);
    FUZZ_REQUIRE(text != NULL);
    write_file(json_path, text, strlen(text));
    mz_status status = mz_config_load(json_path, &flags, RANKS, &again);
    if (status)
        fprintf(stderr, "%s\n%s\n", mz_last_error(), text);
    FUZZ_REQUIRE(status == MZ_OK);
    char *text_again = mz_config_to_json(&again);
    FUZZ_REQUIRE(text_again && strcmp(text, text_again) == 0);
    free(text);
    free(text_again);
}
