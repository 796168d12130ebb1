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
    *layout = (mz_layout){.size = size};
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
    if (!find_even(layout, node_of))
        make_flat(layout);
    for (int m = 0; m < layout->n_nodes; m++)
        for (int l = 0; l < layout->per_node; l++)
            if (mz_layout_rank(layout, m, l) == layout->rank) {
                layout->node = m;
                layout->local = l;
            }
    for (int l = 0; l < layout->per_node; l++)
        layout->node_ranks[l] = members[mz_layout_rank(layout, layout->node, l)];
    mz_free(node_of);
    return MZ_OK;
}

void mz_layout_free(mz_layout *layout)
{
    mz_free(layout->world_ranks);
    mz_free(layout->first);
    mz_free(layout->node_ranks);
    *layout = (mz_layout){0};
}
