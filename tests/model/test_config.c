/* Models from config.json: what they hold, and what is refused by name. */
#include "tests/core/cmocka_all.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "model/gpt2.h"
#include "model/weights.h"
#include "tests/tensor/rig.h"

static mz_status parse(const char *settings, mz_model **model)
{
    char text[1024];
    snprintf(text, sizeof text,
             "{\"model_type\": \"gpt2\",\n%s\n\"n_layer\": 2, \"n_embd\": 8, \"n_head\": 2,"
             " \"vocab_size\": 11, \"n_positions\": 6}",
             settings);
    return mz_model_from_config("CONFIG", text, model);
}

static const mz_param_spec *spec_of(const mz_model *model, const char *name)
{
    for (int u = 0; u < mz_model_n_units(model); u++) {
        const mz_unit_spec *unit = mz_model_unit(model, u);
        for (int i = 0; i < unit->n_params; i++)
            if (strcmp(unit->params[i].name, name) == 0)
                return &unit->params[i];
    }
    fail_msg("no parameter \"%s\"", name);
    return NULL;
}

/* ---- sizes of published models ---- */

static void published_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        int64_t n_params;
        int n_units;
    } models[] = {{"gpt2", 124439808, 14}, {"gpt2-xl", 1557611200, 50}};
    const char *srcdir = getenv("srcdir");
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        char path[600], *text;
        size_t bytes;
        mz_model *model;
        snprintf(path, sizeof path, "%s/../shared/data/configs/%s.config.json", srcdir ? srcdir : ".",
                 models[i].file);
        if (!mz_path_exists(path)) {
            print_message("skipped: %s is not there\n", path);
            skip();
        }
        rig_ok(mz_file_read(path, &text, &bytes), path);
        rig_ok(mz_model_from_config(path, text, &model), path);
        assert_int_equal(mz_model_n_params(model), models[i].n_params);
        assert_int_equal(mz_model_n_units(model), models[i].n_units);
        mz_model_destroy(model);
        mz_free(text);
    }
}

static void what_a_model_holds(void **state)
{
    (void)state;
    mz_model *model;
    rig_ok(parse("\"initializer_range\": 0.5, \"eos_token_id\": 3, \"pad_token_id\": null,", &model), "model");
    const mz_model_info *info = mz_model_get_info(model);
    assert_string_equal(info->family, "gpt2");
    assert_int_equal(info->vocab, 11);
    assert_int_equal(info->max_positions, 6);
    assert_int_equal(info->head_size, 4);
    assert_int_equal(info->eos_id, 3);
    assert_int_equal(info->pad_id, -1);
    assert_non_null(strstr(info->config_json, "GPT2LMHeadModel"));
    assert_non_null(strstr(info->config_json, "\"n_embd\": 8"));

    const mz_param_spec *qkv = spec_of(model, "transformer.h.1.attn.c_attn.weight");
    assert_int_equal(qkv->shape[0], 8);
    assert_int_equal(qkv->shape[1], 24);
    assert_true(qkv->init == MZ_INIT_NORMAL && qkv->init_scale == 0.5f);
    assert_int_equal(spec_of(model, "transformer.h.0.mlp.c_fc.weight")->shape[1], 32);
    assert_true(fabsf(spec_of(model, "transformer.h.0.mlp.c_proj.weight")->init_scale - 0.25f) < 1e-7f);
    assert_true(fabsf(spec_of(model, "transformer.h.1.attn.c_proj.weight")->init_scale - 0.25f) < 1e-7f);
    assert_true(spec_of(model, "transformer.ln_f.weight")->init == MZ_INIT_ONES);
    assert_true(spec_of(model, "transformer.h.0.mlp.c_fc.bias")->init == MZ_INIT_ZEROS);
    assert_string_equal(mz_model_unit(model, 3)->uses[0], "transformer.wte.weight");
    assert_true(mz_model_unit(model, 1)->recomputable && !mz_model_unit(model, 0)->recomputable);
    mz_model_destroy(model);

    /* The names that transformers' attribute map gives the sizes. */
    rig_ok(mz_model_from_config("CONFIG",
                                "{\"model_type\": \"gpt2\", \"hidden_size\": 12, \"num_hidden_layers\": 1,"
                                " \"num_attention_heads\": 3, \"max_position_embeddings\": 9, \"vocab_size\": 5}",
                                &model),
           "model");
    assert_int_equal(mz_model_get_info(model)->hidden, 12);
    assert_int_equal(mz_model_get_info(model)->max_positions, 9);
    mz_model_destroy(model);
}

static void names_in_files(void **state)
{
    (void)state;
    const char *aliases[MZ_MAX_WEIGHT_ALIASES];
    mz_model *tied, *own;
    rig_ok(parse("", &tied), "model");
    rig_ok(parse("\"tie_word_embeddings\": false,", &own), "model");
    assert_int_equal(mz_model_weight_aliases(tied, "transformer.h.0.ln_1.bias", aliases), 1);
    assert_string_equal(aliases[0], "h.0.ln_1.bias");
    assert_int_equal(mz_model_weight_aliases(tied, "transformer.wte.weight", aliases), 2);
    assert_string_equal(aliases[1], "lm_head.weight");
    assert_int_equal(mz_model_weight_aliases(own, "transformer.wte.weight", aliases), 1);
    assert_int_equal(mz_model_weight_aliases(own, "lm_head.weight", aliases), 0);
    assert_true(mz_model_weight_ignored(tied, "h.3.attn.bias"));
    assert_true(mz_model_weight_ignored(tied, "transformer.h.3.attn.masked_bias"));
    assert_true(mz_model_weight_ignored(tied, "lm_head.weight"));
    assert_false(mz_model_weight_ignored(own, "lm_head.weight"));
    assert_false(mz_model_weight_ignored(tied, "h.3.attn.c_attn.bias"));
    mz_model_destroy(tied);
    mz_model_destroy(own);
}

/* ---- refusals ---- */

static void refused(void **state)
{
    (void)state;
    static const struct {
        const char *settings, *words;
        mz_status code;
    } cases[] = {
        {"\"n_head\": 3, \"x\": {", "CONFIG", MZ_ERR_CONFIG},
        {"\"activation_function\": \"quick_gelu\",", "CONFIG:2: key \"activation_function\": \"quick_gelu\"",
         MZ_ERR_UNSUPPORTED},
        {"\"activation_function\": 3,", "expected a string, found 3", MZ_ERR_MODEL},
        {"\"add_cross_attention\": true,", "key \"add_cross_attention\": true is not supported",
         MZ_ERR_UNSUPPORTED},
        {"\"pruned_heads\": {\"0\": [1]},", "pruned_heads", MZ_ERR_UNSUPPORTED},
        {"\"quantization_config\": {\"bits\": 4},", "quantization_config", MZ_ERR_UNSUPPORTED},
        {"\"architectures\": [\"GPT2ForSequenceClassification\"],", "architectures", MZ_ERR_UNSUPPORTED},
        {"\"n_inner\": 0,", "\"n_inner\": expected a whole number from 1", MZ_ERR_MODEL},
        {"\"n_inner\": \"64\",", "found \"64\"", MZ_ERR_MODEL},
        {"\"n_inner\": 2.5,", "found 2.5", MZ_ERR_MODEL},
        {"\"resid_pdrop\": 1.0,", "resid_pdrop", MZ_ERR_MODEL},
        {"\"embd_pdrop\": -0.1,", "embd_pdrop", MZ_ERR_MODEL},
        {"\"attn_pdrop\": [],", "attn_pdrop\": expected a number from 0 to 0.999, found a list", MZ_ERR_MODEL},
        {"\"layer_norm_epsilon\": true,", "layer_norm_epsilon", MZ_ERR_MODEL},
        {"\"scale_attn_weights\": 1,", "expected true or false, found 1", MZ_ERR_MODEL},
        {"\"tie_word_embeddings\": \"no\",", "tie_word_embeddings", MZ_ERR_MODEL},
        {"\"hidden_size\": -4,", "hidden_size", MZ_ERR_MODEL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mz_model *model = NULL;
        mz_status status = parse(cases[i].settings, &model);
        if (status != cases[i].code || !strstr(mz_last_error(), cases[i].words))
            fail_msg("%s: expected \"%s\", found %s: %s", cases[i].settings, cases[i].words, mz_status_text(status),
                     mz_last_error());
        assert_null(model);
    }
}

static void refused_as_a_whole(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"{\"model_type\": \"llama\"}", "expected one of \"gpt2\", found \"llama\""},
        {"{}", "\"model_type\" is missing"},
        {"[1, 2]", "an object"},
        {"{\"model_type\": \"gpt2\", \"n_embd\": 10, \"n_head\": 3}", "expected a divisor of n_embd (10), found 3"},
        {"", "CONFIG"},
    };
    mz_model *model = NULL;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_not_equal(mz_model_from_config("CONFIG", cases[i].text, &model), MZ_OK);
        if (!strstr(mz_last_error(), cases[i].words))
            fail_msg("%s: expected \"%s\", found %s", cases[i].text, cases[i].words, mz_last_error());
    }
    assert_int_equal(mz_model_from_folder("no/such/folder", &model), MZ_ERR_MODEL);
    assert_non_null(strstr(mz_last_error(), "no config.json"));
    assert_null(model);
}

/* ---- models of one's own ---- */

static mz_status nothing(const mz_unit_call *call)
{
    (void)call;
    return MZ_OK;
}

static void own_models(void **state)
{
    (void)state;
    const mz_param_spec params[] = {{.name = "a", .n_dims = 1, .shape = {3}},
                                    {.name = "b", .n_dims = 1, .shape = {2}}};
    const mz_param_spec twice[] = {{.name = "c", .n_dims = 1, .shape = {3}},
                                   {.name = "c", .n_dims = 1, .shape = {2}}};
    const mz_param_spec empty[] = {{.name = "d", .n_dims = 2, .shape = {3, 0}}};
    const char *const uses[] = {"later"};
    mz_model *model;
    rig_ok(mz_model_create("own", &model), "model");
    rig_ok(
        mz_model_add_unit(model, &(mz_unit_spec){.name = "u", .params = params, .n_params = 2, .forward = nothing}),
        "unit");
    assert_int_equal(
        mz_model_add_unit(model,
                          &(mz_unit_spec){.name = "v", .params = params + 1, .n_params = 1, .forward = nothing}),
        MZ_ERR_ARGUMENT);
    assert_non_null(strstr(mz_last_error(), "\"b\" exists already"));
    assert_int_equal(
        mz_model_add_unit(model, &(mz_unit_spec){.name = "v", .params = twice, .n_params = 2, .forward = nothing}),
        MZ_ERR_ARGUMENT);
    assert_int_equal(
        mz_model_add_unit(model, &(mz_unit_spec){.name = "v", .params = empty, .n_params = 1, .forward = nothing}),
        MZ_ERR_ARGUMENT);
    assert_int_equal(
        mz_model_add_unit(model, &(mz_unit_spec){.name = "v", .uses = uses, .n_uses = 1, .forward = nothing}),
        MZ_ERR_ARGUMENT);
    assert_non_null(strstr(mz_last_error(), "uses \"later\""));
    assert_int_equal(mz_model_add_unit(model, &(mz_unit_spec){.name = "v"}), MZ_ERR_ARGUMENT);
    assert_int_equal(mz_model_n_units(model), 1);
    assert_int_equal(mz_model_n_params(model), 5);
    assert_null(mz_model_get_info(model)->family);
    mz_model_destroy(model);
    mz_model_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_sizes), cmocka_unit_test(what_a_model_holds), cmocka_unit_test(names_in_files),
        cmocka_unit_test(refused),         cmocka_unit_test(refused_as_a_whole), cmocka_unit_test(own_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
