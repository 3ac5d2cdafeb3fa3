/* Counts what a program asks of MPI: messages, collective operations and their bytes, on this rank.
 *
 * Loaded before MPI (LD_PRELOAD), it stands in front of the library's functions, for callers that were linked to them as
 * well as for those that look them up by name. Every function is there twice, for counts of type int and, with the
 * suffix _c of MPI 4, for large ones. Persistent requests count each time they are started.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <mpi.h>
#include <string.h>

enum { MESSAGES, MESSAGE_BYTES, COLLECTIVES, COLLECTIVE_BYTES, BARRIERS, N_COUNTS };
static long long counts[N_COUNTS];

enum { MOST = 4096 };
static struct { MPI_Request request; long long bytes; } persistent[MOST];
static int n_persistent;

void mpi_counts(long long *out) { memcpy(out, counts, sizeof counts); }

static long long size_of(long long n, MPI_Datatype type)
{
    int bytes = 0;
    PMPI_Type_size(type, &bytes);
    return n * bytes;
}

static void message(long long bytes) { counts[MESSAGES] += 1; counts[MESSAGE_BYTES] += bytes; }
static void collective(long long bytes) { counts[COLLECTIVES] += 1; counts[COLLECTIVE_BYTES] += bytes; }

static void remember(MPI_Request request, long long bytes)
{
    if (n_persistent == MOST) return;
    persistent[n_persistent].request = request;
    persistent[n_persistent++].bytes = bytes;
}

static void started(MPI_Request request)
{
    for (int i = 0; i < n_persistent; ++i)
        if (persistent[i].request == request) { message(persistent[i].bytes); return; }
}

/* -- from one rank to another ---------------------------------------------------------------------------------------- */

#define SEND(NAME, COUNT) \
    int MPI_##NAME(const void *b, COUNT n, MPI_Datatype t, int to, int tag, MPI_Comm c) \
    { message(size_of(n, t)); return PMPI_##NAME(b, n, t, to, tag, c); }
#define ISEND(NAME, COUNT) \
    int MPI_##NAME(const void *b, COUNT n, MPI_Datatype t, int to, int tag, MPI_Comm c, MPI_Request *r) \
    { message(size_of(n, t)); return PMPI_##NAME(b, n, t, to, tag, c, r); }
#define SEND_INIT(NAME, COUNT) \
    int MPI_##NAME(const void *b, COUNT n, MPI_Datatype t, int to, int tag, MPI_Comm c, MPI_Request *r) \
    { int s = PMPI_##NAME(b, n, t, to, tag, c, r); remember(*r, size_of(n, t)); return s; }
#define SENDRECV(NAME, COUNT) \
    int MPI_##NAME(const void *s, COUNT n, MPI_Datatype t, int to, int tag, void *r, COUNT rn, MPI_Datatype rt, int from, \
                   int rtag, MPI_Comm c, MPI_Status *status) \
    { message(size_of(n, t)); return PMPI_##NAME(s, n, t, to, tag, r, rn, rt, from, rtag, c, status); }

SEND(Send, int) SEND(Send_c, MPI_Count) SEND(Ssend, int) SEND(Ssend_c, MPI_Count)
SEND(Rsend, int) SEND(Rsend_c, MPI_Count) SEND(Bsend, int) SEND(Bsend_c, MPI_Count)
ISEND(Isend, int) ISEND(Isend_c, MPI_Count) ISEND(Issend, int) ISEND(Issend_c, MPI_Count)
ISEND(Irsend, int) ISEND(Irsend_c, MPI_Count) ISEND(Ibsend, int) ISEND(Ibsend_c, MPI_Count)
SEND_INIT(Send_init, int) SEND_INIT(Send_init_c, MPI_Count) SEND_INIT(Ssend_init, int) SEND_INIT(Ssend_init_c, MPI_Count)
SEND_INIT(Rsend_init, int) SEND_INIT(Rsend_init_c, MPI_Count) SEND_INIT(Bsend_init, int) SEND_INIT(Bsend_init_c, MPI_Count)
SENDRECV(Sendrecv, int) SENDRECV(Sendrecv_c, MPI_Count)

int MPI_Request_free(MPI_Request *request)
{
    for (int i = 0; i < n_persistent; ++i)
        if (persistent[i].request == *request) { persistent[i] = persistent[--n_persistent]; break; }
    return PMPI_Request_free(request);
}

int MPI_Start(MPI_Request *request) { started(*request); return PMPI_Start(request); }

int MPI_Startall(int n, MPI_Request *requests)
{
    for (int i = 0; i < n; ++i) started(requests[i]);
    return PMPI_Startall(n, requests);
}

/* -- among all ------------------------------------------------------------------------------------------------------- */

#define REDUCE(NAME, COUNT) \
    int MPI_##NAME(const void *s, void *r, COUNT n, MPI_Datatype t, MPI_Op op, MPI_Comm c) \
    { collective(size_of(n, t)); return PMPI_##NAME(s, r, n, t, op, c); }
#define IREDUCE(NAME, COUNT) \
    int MPI_##NAME(const void *s, void *r, COUNT n, MPI_Datatype t, MPI_Op op, MPI_Comm c, MPI_Request *q) \
    { collective(size_of(n, t)); return PMPI_##NAME(s, r, n, t, op, c, q); }
#define REDUCE_TO(NAME, COUNT) \
    int MPI_##NAME(const void *s, void *r, COUNT n, MPI_Datatype t, MPI_Op op, int root, MPI_Comm c) \
    { collective(size_of(n, t)); return PMPI_##NAME(s, r, n, t, op, root, c); }
#define BCAST(NAME, COUNT) \
    int MPI_##NAME(void *b, COUNT n, MPI_Datatype t, int root, MPI_Comm c) \
    { collective(size_of(n, t)); return PMPI_##NAME(b, n, t, root, c); }
#define GATHER(NAME, COUNT) \
    int MPI_##NAME(const void *s, COUNT n, MPI_Datatype t, void *r, COUNT rn, MPI_Datatype rt, int root, MPI_Comm c) \
    { collective(size_of(n, t)); return PMPI_##NAME(s, n, t, r, rn, rt, root, c); }
#define GATHERV(NAME, COUNT, PLACE) \
    int MPI_##NAME(const void *s, COUNT n, MPI_Datatype t, void *r, const COUNT *rn, const PLACE *d, MPI_Datatype rt, \
                   int root, MPI_Comm c) \
    { collective(size_of(n, t)); return PMPI_##NAME(s, n, t, r, rn, d, rt, root, c); }
#define ALL(NAME, COUNT) \
    int MPI_##NAME(const void *s, COUNT n, MPI_Datatype t, void *r, COUNT rn, MPI_Datatype rt, MPI_Comm c) \
    { collective(size_of(n, t)); return PMPI_##NAME(s, n, t, r, rn, rt, c); }
#define ALLV(NAME, COUNT, PLACE) \
    int MPI_##NAME(const void *s, COUNT n, MPI_Datatype t, void *r, const COUNT *rn, const PLACE *d, MPI_Datatype rt, \
                   MPI_Comm c) \
    { collective(size_of(n, t)); return PMPI_##NAME(s, n, t, r, rn, d, rt, c); }

REDUCE(Allreduce, int) REDUCE(Allreduce_c, MPI_Count) REDUCE(Scan, int) REDUCE(Scan_c, MPI_Count)
REDUCE(Exscan, int) REDUCE(Exscan_c, MPI_Count) IREDUCE(Iallreduce, int) IREDUCE(Iallreduce_c, MPI_Count)
REDUCE_TO(Reduce, int) REDUCE_TO(Reduce_c, MPI_Count) BCAST(Bcast, int) BCAST(Bcast_c, MPI_Count)
GATHER(Gather, int) GATHER(Gather_c, MPI_Count) GATHER(Scatter, int) GATHER(Scatter_c, MPI_Count)
GATHERV(Gatherv, int, int) GATHERV(Gatherv_c, MPI_Count, MPI_Aint)
ALL(Allgather, int) ALL(Allgather_c, MPI_Count) ALL(Alltoall, int) ALL(Alltoall_c, MPI_Count)
ALL(Neighbor_alltoall, int) ALL(Neighbor_alltoall_c, MPI_Count)
ALL(Neighbor_allgather, int) ALL(Neighbor_allgather_c, MPI_Count)
ALLV(Allgatherv, int, int) ALLV(Allgatherv_c, MPI_Count, MPI_Aint)

int MPI_Barrier(MPI_Comm c) { counts[BARRIERS] += 1; return PMPI_Barrier(c); }

/* Who looks a function up by name, in a library of his choice, would get past all of this. */
void *dlsym(void *handle, const char *name)
{
    static const struct { const char *name; void *function; } ours[] = {
        {"MPI_Start", (void *)MPI_Start},         {"MPI_Startall", (void *)MPI_Startall},
        {"MPI_Isend", (void *)MPI_Isend},         {"MPI_Isend_c", (void *)MPI_Isend_c},
        {"MPI_Send", (void *)MPI_Send},           {"MPI_Send_c", (void *)MPI_Send_c},
        {"MPI_Allreduce", (void *)MPI_Allreduce}, {"MPI_Allreduce_c", (void *)MPI_Allreduce_c},
    };
    static void *(*real)(void *, const char *);
    if (!real) real = (void *(*)(void *, const char *))dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.34");
    if (!real) real = (void *(*)(void *, const char *))dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.2.5");
    for (unsigned i = 0; i < sizeof ours / sizeof *ours; ++i)
        if (!strcmp(name, ours[i].name)) return ours[i].function;
    return real(handle, name);
}
