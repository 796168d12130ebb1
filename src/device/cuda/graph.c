/* Graphs: a compute stream's work, captured and launched again as one. The capture is the thread's own: what other
 * threads do meanwhile, such as copying a checkpoint, does not concern it. */
#include "core/error.h"
#include "core/memory.h"
#include "device/cuda/stream.h"

struct mz_graph {
    cudaGraphExec_t launchable;
};

mz_status mz_cuda_not_recording(const mz_stream *stream, const char *what)
{
    return stream->recording
               ? mz_fail(MZ_ERR_UNSUPPORTED, "%s: %s cannot be recorded in a graph", stream->device->label, what)
               : MZ_OK;
}

static mz_status graph_begin(mz_stream *stream)
{
    mz_status st = mz_cuda_check(cudaStreamBeginCapture(stream->stream, cudaStreamCaptureModeThreadLocal),
                                 "cudaStreamBeginCapture");
    stream->recording = st == MZ_OK;
    if (st != MZ_OK)
        cudaGetLastError();
    return st;
}

static void graph_destroy(mz_graph *graph)
{
    if (!graph)
        return;
    if (graph->launchable)
        cudaGraphExecDestroy(graph->launchable);
    mz_free(graph);
}

static mz_status instantiate(cudaGraph_t captured, mz_stream *stream, mz_graph **out)
{
    mz_graph *graph = mz_calloc(1, sizeof *graph);
    if (!graph)
        return MZ_ERR_MEMORY;
    mz_status st = mz_cuda_check(cudaGraphInstantiate(&graph->launchable, captured, 0), "cudaGraphInstantiate");
    if (st == MZ_OK) /* else the first launch would do it */
        st = mz_cuda_check(cudaGraphUpload(graph->launchable, stream->stream), "cudaGraphUpload");
    if (st == MZ_OK)
        *out = graph;
    else
        graph_destroy(graph);
    return st;
}

/* What went wrong is left behind as CUDA's last error, which the next launch would take for its own. */
static mz_status graph_end(mz_stream *stream, mz_graph **graph)
{
    cudaGraph_t captured = NULL;
    stream->recording = false;
    mz_status st = mz_cuda_check(cudaStreamEndCapture(stream->stream, &captured), "cudaStreamEndCapture");
    if (st == MZ_OK)
        st = instantiate(captured, stream, graph);
    if (captured)
        cudaGraphDestroy(captured);
    if (st != MZ_OK)
        cudaGetLastError();
    return st;
}

static mz_status graph_launch(mz_graph *graph, mz_stream *stream)
{
    return mz_cuda_check(cudaGraphLaunch(graph->launchable, stream->stream), "cudaGraphLaunch");
}

const mz_graph_ops mz_cuda_graphs = {
    .begin = graph_begin,
    .end = graph_end,
    .launch = graph_launch,
    .destroy = graph_destroy,
};
