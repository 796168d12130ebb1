#include "comm/layout.h"

#include "core/memory.h"

/* Fills n_nodes, per_node, first and step from node_of[comm rank]; false when the comm does not sit evenly. */
static bool find_even(mz_layout *layout, const int *node_of)
{
    int size = layout->size;
    layout->n_nodes = 0;
    for (int r = 0; r < size; r++) {
        bool is_first = true;
        for (int q = 0; q < r && is_first; q++)
            is_first = node_of[q] != node_of[r];
        if (is_first)
            layout->first[layout->n_nodes++] = r;
    }
    if (size % layout->n_nodes)
        return false;
    layout->per_node = size / layout->n_nodes;
    layout->step = 1;
    if (layout->per_node > 1)
        for (int r = 1; r < size; r++)
            if (node_of[r] == node_of[0]) {
                layout->step = r;
                break;
            }
    for (int m = 0; m < layout->n_nodes; m++)
        for (int l = 0; l < layout->per_node; l++) {
            int r = mz_layout_rank(layout, m, l);
            if (r >= size || node_of[r] != node_of[layout->first[m]])
                return false;
        }
    return true;
}

static void free_uneven(mz_uneven *u)
{
    if (!u)
        return;
    mz_free(u->first);
    mz_free(u->step);
    mz_free(u->count);
    mz_free(u->node_ranks);
    mz_free(u);
}

/* Adds comm rank r to its node, which is the one that begins at a rank of the same node, or a new one; false where
 * that leaves the node's ranks unevenly spaced. */
static bool add_rank(mz_uneven *u, const int *node_of, int r)
{
    int m = 0;
    while (m < u->n_nodes && node_of[u->first[m]] != node_of[r])
        m++;
    if (m == u->n_nodes) {
        u->first[u->n_nodes++] = r;
        u->step[m] = 1;
    } else if (u->count[m] == 1) {
        u->step[m] = r - u->first[m];
    } else if (r != u->first[m] + u->count[m] * u->step[m]) {
        return false;
    }
    u->count[m]++;
    u->most = u->count[m] > u->most ? u->count[m] : u->most;
    return true;
}

/* Leaves layout->uneven NULL where the nodes are no use: all ranks on one of their own, or oddly spaced. */
static mz_status find_uneven(mz_layout *layout, const int *node_of, const int *members)
{
    size_t size = (size_t)layout->size;
    mz_uneven *u = mz_calloc(1, sizeof *u);
    if (!u)
        return MZ_ERR_MEMORY;
    u->first = mz_calloc(size, sizeof *u->first);
    u->step = mz_calloc(size, sizeof *u->step);
    u->count = mz_calloc(size, sizeof *u->count);
    u->node_ranks = mz_calloc(size, sizeof *u->node_ranks);
    if (!u->first || !u->step || !u->count || !u->node_ranks) {
        free_uneven(u);
        return MZ_ERR_MEMORY;
    }
    bool fits = true;
    for (int r = 0; r < layout->size && fits; r++)
        fits = add_rank(u, node_of, r);
    if (!fits || u->most == 1 || u->most > MZ_UNEVEN_RANKS) {
        free_uneven(u);
        return MZ_OK;
    }
    while (node_of[u->first[u->node]] != node_of[layout->rank])
        u->node++;
    u->local = (layout->rank - u->first[u->node]) / u->step[u->node];
    for (int l = 0; l < u->count[u->node]; l++)
        u->node_ranks[l] = members[u->first[u->node] + l * u->step[u->node]];
    layout->uneven = u;
    return MZ_OK;
}

static void make_flat(mz_layout *layout)
{
    layout->n_nodes = layout->size;
    layout->per_node = 1;
    layout->step = 1;
    for (int r = 0; r < layout->size; r++)
        layout->first[r] = r;
}

mz_status mz_layout_find(const mz_world *world, const int *members, int size, mz_layout *layout)
{
    *layout = (mz_layout){.size = size, .board = world->board};
    int *node_of = mz_alloc((size_t)size * sizeof *node_of);
    layout->world_ranks = mz_alloc((size_t)size * sizeof *layout->world_ranks);
    layout->first = mz_alloc((size_t)size * sizeof *layout->first);
    layout->node_ranks = mz_alloc((size_t)size * sizeof *layout->node_ranks);
    if (!node_of || !layout->world_ranks || !layout->first || !layout->node_ranks) {
        mz_free(node_of);
        return MZ_ERR_MEMORY;
    }
    for (int r = 0; r < size; r++) {
        layout->world_ranks[r] = members[r];
        node_of[r] = world->node_of[members[r]];
        if (members[r] == world->rank)
            layout->rank = r;
    }
    mz_status status = MZ_OK;
    if (!find_even(layout, node_of)) {
        status = find_uneven(layout, node_of, members);
        make_flat(layout);
    }
    for (int m = 0; m < layout->n_nodes; m++)
        for (int l = 0; l < layout->per_node; l++)
            if (mz_layout_rank(layout, m, l) == layout->rank) {
                layout->node = m;
                layout->local = l;
            }
    for (int l = 0; l < layout->per_node; l++)
        layout->node_ranks[l] = members[mz_layout_rank(layout, layout->node, l)];
    mz_free(node_of);
    return status;
}

void mz_layout_free(mz_layout *layout)
{
    mz_free(layout->world_ranks);
    mz_free(layout->first);
    mz_free(layout->node_ranks);
    free_uneven(layout->uneven);
    *layout = (mz_layout){0};
}
