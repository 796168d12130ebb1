/* Matrix products on packed panels (gemm_pack.c) and a register tile (gemm_micro.h), spread over threads by
 * rows of C, or by columns where rows are few. Each element of C is summed over k in one order whatever the
 * split, so the bits depend neither on the number of threads nor on other rows (matmul.c has an exception). */
#include "kernels/cpu/gemm.h"

#include "kernels/cpu/storage.h"

/* Sizes of packed blocks, in words of 32 bits: one block of A per thread stays in the second-level cache together
 * with a panel of B; a block of B in the third level or, streamed, in memory. */
enum { MAX_KC = 1536, A_BLOCK = 128 * 1024, B_BLOCK = 2 * 1024 * 1024, PARTIAL_BLOCK = 2 * 1024 * 1024 };
/* B that fits here is read in place, where its layout allows it; else each thread packs all of it for itself, when
 * it has so many rows of C that packing costs little beside its products: then no thread waits for another's
 * packing, nor reads from another's cache. */
enum { SMALL_B = 64 * 1024, ROWS_FOR_B = 128 };
/* Floats between panels, so that pieces of one row in neighbouring panels do not fall on one cache set. */
enum { PANEL_GAP = 32 };
/* Panels of B packed at once: rows of B are read in long pieces. */
enum { PACKED_TOGETHER = 16 };

static const float zeros[MZ_NR];

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* The largest block size not above `most` that cuts n into equal blocks of whole `unit`s. */
static int64_t balanced(int64_t n, int64_t most, int64_t unit)
{
    most = most / unit * unit;
    if (most < unit)
        most = unit;
    if (n < 1)
        return unit;
    return ceil_div(ceil_div(n, ceil_div(n, most)), unit) * unit;
}

static bool has_bias(const mz_matmul_args *a)
{
    return a->bias && (a->epilogue == MZ_EPI_BIAS || a->epilogue == MZ_EPI_ACT);
}

static mz_gemm_sink choose_sink(const mz_matmul_args *a, bool one_pass)
{
    const mz_gemm_sink elsewhere = one_pass ? MZ_SINK_TILE : MZ_SINK_PARTIAL;
    const bool plain = a->epilogue == MZ_EPI_NONE || a->epilogue == MZ_EPI_BGRAD_A || a->epilogue == MZ_EPI_BGRAD_B;
    if (a->dtype_c != MZ_F32 || (a->accumulate && !plain))
        return elsewhere;
    if (a->epilogue == MZ_EPI_ACT && a->aux)
        return a->dtype == MZ_F32 ? MZ_SINK_AUX : elsewhere;
    return MZ_SINK_C;
}

/* The values that the sums of columns j..j+n start from: NULL to add to what the sink holds. */
static const float *initial(const mz_gemm *g, int64_t j, int64_t n, float room[MZ_NR])
{
    const mz_matmul_args *a = g->args;
    if (!g->first || (g->sink == MZ_SINK_C && a->accumulate))
        return NULL;
    if (!has_bias(a))
        return zeros;
    if (a->dtype == MZ_F32 && n == MZ_NR)
        return (const float *)a->bias + j;
    for (int64_t v = 0; v < MZ_NR; v += VF_N)
        vf_store(room + v, n > v ? mz_load_n(a->bias, a->dtype, j + v, n - v) : vf_set1(0.0f));
    return room;
}

/* to[r][c] = or += tile[r][c], n columns of mr rows. */
static void put_tile(const float *tile, int mr, int64_t n, bool add, float *to, int64_t ld)
{
    for (int r = 0; r < mr; r++)
        for (int64_t v = 0; v < n; v += VF_N) {
            vf x = vf_load(tile + r * MZ_NR + v);
            if (add)
                x += vf_load_n(to + r * ld + v, n - v);
            vf_store_n(to + r * ld + v, x, n - v);
        }
}

/* Asks for the cache lines of a tile, to be there when the micro-kernel is through: in the second level, since
 * the first has no misses to spare while the panels stream through it. */
static void prefetch_tile(const void *p, mz_dtype dtype, int64_t at, int64_t ld, int mr, int64_t n)
{
    const int64_t bytes = n * mz_storage_size(dtype);
    for (int r = 0; r < mr; r++) {
        const char *row = mz_at_const(p, dtype, at + r * ld);
        for (int64_t b = 0; b < bytes; b += 64)
            __builtin_prefetch(row + b, 0, 2);
    }
}

/* The tile at row i and column j of C, mr x n, from a panel of A and a panel of B. */
static void compute_tile(const mz_gemm *g, int64_t i, int64_t j, int mr, int64_t n, const float *a, const float *b,
                         int64_t b_k, const float *init)
{
    const mz_matmul_args *args = g->args;
    const int nv = (int)ceil_div(n, VF_N);
    float tile[MZ_MR * MZ_NR] __attribute__((aligned(64)));
    float *sink = tile;
    int64_t ld = MZ_NR;
    if (g->sink == MZ_SINK_C) {
        sink = (float *)g->c + i * args->ldc + j;
        ld = args->ldc;
    } else if (g->sink == MZ_SINK_AUX) {
        sink = (float *)args->aux + i * args->n + j;
        ld = args->n;
    } else if (g->sink == MZ_SINK_PARTIAL) {
        sink = g->partial + i * g->nc + (j - g->j0);
        ld = g->nc;
    }
    if (g->sink == MZ_SINK_AUX || g->sink == MZ_SINK_C)
        prefetch_tile(sink, MZ_F32, 0, ld, mr, n);
    if (g->last && g->sink != MZ_SINK_C)
        prefetch_tile(g->c, args->dtype_c, i * args->ldc + j, args->ldc, mr, n);
    if (g->last && args->epilogue == MZ_EPI_DACT)
        prefetch_tile(args->aux, args->dtype, i * args->n + j, args->n, mr, n);
    const mz_micro_fn micro = args->trans_a ? g->form->panel[mr][nv] : g->form->block[mr][nv];
    if (sink == tile || n == nv * VF_N) {
        micro(g->k, a, MZ_MR, b, b_k, init, sink, ld);
    } else {
        micro(g->k, a, MZ_MR, b, b_k, init ? init : zeros, tile, MZ_NR);
        put_tile(tile, mr, n, !init, sink, ld);
    }
    const bool done = g->sink == MZ_SINK_C && args->epilogue != MZ_EPI_ACT && args->epilogue != MZ_EPI_DACT;
    if (g->last && !done)
        MZ_CPU(finish_tile)(g, i, j, mr, n, sink, ld);
}

/* All tiles of rows i0..i0+m, packed in `a`, and one panel of B. */
static void compute_panel(const mz_gemm *g, int64_t i0, int64_t m, int64_t j, int64_t n, const float *a,
                          const float *b, int64_t b_k)
{
    float room[MZ_NR] __attribute__((aligned(64)));
    const float *init = initial(g, j, n, room);
    for (int64_t i = 0; i < m; i += MZ_MR) {
        const int mr = m - i < MZ_MR ? (int)(m - i) : MZ_MR;
        compute_tile(g, i0 + i, j, mr, n, a + i / MZ_MR * g->a_panel, b, b_k, init);
    }
}

/* Packs columns j..j+n of B and, when the epilogue wants their sums, adds those up on the way. */
static void pack_b(const mz_gemm *g, int64_t j, int64_t n, float *out)
{
    float sums[PACKED_TOGETHER * MZ_NR] __attribute__((aligned(64)));
    const mz_matmul_args *a = g->args;
    if (!g->column_sums) {
        g->form->pack_b(g, j, n, out, NULL);
        return;
    }
    memset(sums, 0, (size_t)ceil_div(n, VF_N) * VF_N * sizeof *sums);
    g->form->pack_b(g, j, n, out, sums);
    for (int64_t c = 0; c < n; c += VF_N) {
        vf total = vf_load(sums + c);
        if (!g->first)
            total += vf_load_n(g->column_sums + j + c, n - c);
        vf_store_n(g->column_sums + j + c, total, n - c);
        if (g->last && a->accumulate_bias_grad)
            total += mz_load_n(a->bias_grad, a->dtype_c, j + c, n - c);
        if (g->last)
            mz_store_n(a->bias_grad, a->dtype_c, j + c, total, n - c);
    }
}

/* ---- threads share the rows; B is packed once for all, or by each ---- */

/* Panels begin..end of the block of B. */
static void pack_panels(const mz_gemm *g, float *packed_b, int64_t begin, int64_t end)
{
    for (int64_t panel = begin; panel < end; panel += PACKED_TOGETHER) {
        const int64_t j = panel * MZ_NR, stop = panel + PACKED_TOGETHER < end ? panel + PACKED_TOGETHER : end;
        const int64_t n = g->n < stop * MZ_NR ? g->n - j : (stop - panel) * MZ_NR;
        pack_b(g, g->j0 + j, n, packed_b + panel * g->b_panel);
    }
}

static void pack_shared_b(void *arg, int64_t begin, int64_t end, int thread)
{
    const mz_gemm *g = arg;
    (void)thread;
    pack_panels(g, g->packed_b, begin, end);
}

static float *room_of(const mz_gemm *g, int thread)
{
    return (float *)(g->rooms.first + (size_t)thread * g->rooms.distance);
}

static void compute_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const mz_gemm *g = arg;
    float *a = room_of(g, thread), *packed_b = g->packed_b;
    const int64_t mc = balanced(end - begin, g->mc, MZ_MR);
    if (g->owns_b) {
        packed_b = a + g->packed_a_size;
        pack_panels(g, packed_b, 0, ceil_div(g->n, MZ_NR));
    }
    for (int64_t i = begin; i < end; i += mc) {
        const int64_t m = end - i < mc ? end - i : mc;
        g->form->pack_a(g, i, m, a);
        for (int64_t j = 0; j < g->n; j += MZ_NR) {
            const int64_t n = g->n - j < MZ_NR ? g->n - j : MZ_NR;
            if (g->reads_b)
                compute_panel(g, i, m, j, n, a, (const float *)g->b + g->p0 * g->args->ldb + j, g->args->ldb);
            else
                compute_panel(g, i, m, g->j0 + j, n, a, packed_b + j / MZ_NR * g->b_panel, MZ_NR);
        }
    }
}

/* Sets the block of k that starts at p. */
static void set_k_block(mz_gemm *g, int64_t p)
{
    g->p0 = p;
    g->k = g->steps - p < g->kc ? g->steps - p : g->kc;
    g->first = p == 0;
    g->last = p + g->k >= g->steps;
}

static void product_by_rows(mz_gemm *g, mz_threads *threads)
{
    for (g->j0 = 0; g->j0 < g->args->n; g->j0 += g->nc) {
        g->n = g->args->n - g->j0 < g->nc ? g->args->n - g->j0 : g->nc;
        int64_t p = 0;
        do {
            set_k_block(g, p);
            if (!g->reads_b && !g->owns_b)
                mz_threads_for(threads, ceil_div(g->n, MZ_NR), 1, pack_shared_b, g);
            mz_threads_for(threads, g->args->m, 4, compute_rows, g);
            p += g->k;
        } while (!g->last);
    }
}

/* ---- threads share the columns; each packs its own panels of B, and all of A ---- */

static void compute_columns(void *arg, int64_t begin, int64_t end, int thread)
{
    mz_gemm g = *(const mz_gemm *)arg;
    const int64_t first = begin * MZ_NR, stop = end * MZ_NR < g.args->n ? end * MZ_NR : g.args->n;
    float *a = room_of(&g, thread), *room = a + g.packed_a_size;
    int64_t p = 0;
    do {
        set_k_block(&g, p);
        g.form->pack_a(&g, 0, g.args->m, a);
        for (int64_t j = first; j < stop; j += MZ_NR) {
            const int64_t n = stop - j < MZ_NR ? stop - j : MZ_NR;
            if (g.reads_b) {
                compute_panel(&g, 0, g.args->m, j, n, a, (const float *)g.b + g.p0 * g.args->ldb + j, g.args->ldb);
            } else {
                pack_b(&g, j, n, room);
                compute_panel(&g, 0, g.args->m, j, n, a, room, MZ_NR);
            }
        }
        p += g.k;
    } while (!g.last);
}

/* ---- choosing ---- */

static bool by_columns(const mz_matmul_args *a, int n_threads, int64_t mc)
{
    return a->m <= mc && (n_threads == 1 || a->m < 2 * MZ_MR * n_threads);
}

/* Whether op(B)'s columns are summed while B is packed. */
static bool sums_columns(const mz_matmul_args *a)
{
    return a->epilogue == MZ_EPI_BGRAD_B && !a->trans_b;
}

static const mz_gemm_form *choose_form(const mz_matmul_args *a)
{
#ifdef MZ_HAS_PAIRS
    if (a->dtype == MZ_BF16 && a->alpha == 1.0f)
        return &MZ_CPU(gemm_pairs);
#endif
    (void)a;
    return &MZ_CPU(gemm_floats);
}

/* ---- shared work space, in floats: a block of B, sums that wait for the next block of k, sums of columns ---- */

static int64_t shared_b_size(const mz_gemm *g, bool columns)
{
    return columns || g->reads_b || g->owns_b ? 0 : g->b_panel * ceil_div(g->nc, MZ_NR);
}

static int64_t partial_size(const mz_gemm *g)
{
    return g->sink == MZ_SINK_PARTIAL ? g->args->m * g->nc + MZ_NR : 0;
}

static bool has_column_sums(const mz_gemm *g)
{
    return sums_columns(g->args) && !g->reads_b;
}

static int64_t shared_size(const mz_gemm *g, bool columns)
{
    return shared_b_size(g, columns) + partial_size(g) + (has_column_sums(g) ? g->args->n : 0);
}

mz_gemm_space MZ_CPU(gemm_plan)(const mz_matmul_args *a, int n_threads, mz_gemm *g)
{
    *g = (mz_gemm){.args = a, .form = choose_form(a)};
    g->steps = ceil_div(a->k, g->form->elements);
    g->kc = balanced(g->steps, MAX_KC, 1);
    g->mc = balanced(a->m, A_BLOCK / g->kc, MZ_MR);
    g->sink = choose_sink(a, g->kc >= g->steps);
    const bool columns = by_columns(a, n_threads, g->mc);
    const bool in_place = !a->trans_b && a->dtype == MZ_F32 && a->n % VF_N == 0;
    g->reads_b = in_place && (a->m <= 2 * MZ_MR || a->k * a->n <= SMALL_B);

    g->nc = a->n;
    if (!columns && !g->reads_b)
        g->nc = balanced(a->n, B_BLOCK / g->kc, MZ_NR);
    if (!columns && g->sink == MZ_SINK_PARTIAL && g->nc > PARTIAL_BLOCK / a->m)
        g->nc = balanced(a->n, PARTIAL_BLOCK / a->m, MZ_NR);
    if (g->sink == MZ_SINK_PARTIAL)
        g->nc = ceil_div(g->nc, MZ_NR) * MZ_NR;
    g->owns_b = !columns && !g->reads_b && !sums_columns(a) && g->kc * g->nc <= SMALL_B &&
                a->m >= ROWS_FOR_B * (int64_t)n_threads;

    g->a_panel = MZ_MR * (g->kc + VF_N) + PANEL_GAP; /* kc, rounded up to whole blocks */
    g->b_panel = MZ_NR * g->kc + PANEL_GAP;
    g->packed_a_size = g->mc / MZ_MR * g->a_panel;
    mz_gemm_space space = {.room = g->packed_a_size, .shared = shared_size(g, columns)};
    if (columns)
        space.room += g->b_panel;
    else if (g->owns_b)
        space.room += g->b_panel * ceil_div(g->nc, MZ_NR);
    return space;
}

bool MZ_CPU(gemm_run)(mz_gemm *g, mz_threads *threads, mz_cpu_rooms rooms, float *shared)
{
    const mz_matmul_args *args = g->args;
    const bool columns = by_columns(args, mz_threads_count(threads), g->mc);
    g->rooms = rooms;
    g->packed_b = shared;
    g->partial = shared + shared_b_size(g, columns);
    g->column_sums = has_column_sums(g) ? g->partial + partial_size(g) : NULL;
    for (int64_t i = 0; i < args->batch; i++) {
        g->a = mz_at_const(args->a, args->dtype, i * args->stride_a);
        g->b = mz_at_const(args->b, args->dtype, i * args->stride_b);
        g->c = mz_at(args->c, args->dtype_c, i * args->stride_c);
        if (columns)
            mz_threads_for(threads, ceil_div(args->n, MZ_NR), 1, compute_columns, g);
        else
            product_by_rows(g, threads);
    }
    return g->column_sums != NULL;
}
