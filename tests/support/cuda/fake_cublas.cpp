// As much of cuBLAS as backends/cublas.py asks for, on the CPU (tests only): column-major loops over memory of the host, and
// the order of calls that the real one wants. What the real one would answer to a wrong argument, this one answers too.
#include <cstring>

enum Status { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum Type { R_32F = 0, R_64F = 1, R_16F = 2 };
enum Compute { COMPUTE_32F = 68, COMPUTE_64F = 70, COMPUTE_TF32 = 77 };

struct Handle {
    bool alive, has_stream;
    void *stream, *workspace;
    size_t bytes;
    int mode;
};

static int refuse_create, fail_next, handles, products;
static void* last_stream;

// What a test may tell and ask.
extern "C" void fake_refuse_create(int status) { refuse_create = status; }
extern "C" void fake_fail_next(int status) { fail_next = status; }
extern "C" int fake_handles() { return handles; }
extern "C" int fake_products() { return products; }
extern "C" void* fake_last_stream() { return last_stream; }

static bool valid(const Handle* handle) { return handle && handle->alive; }

static double read(const void* from, int type, long long k) {
    return type == R_64F ? ((const double*)from)[k] : type == R_32F ? ((const float*)from)[k] : (float)((const _Float16*)from)[k];
}

static void write(void* to, int type, long long k, double value) {
    if (type == R_64F) ((double*)to)[k] = value;
    else if (type == R_32F) ((float*)to)[k] = (float)value;
    else ((_Float16*)to)[k] = (_Float16)(float)value;
}

// The 10 bits of fraction that TF32 has, to nearest.
static double to_tf32(double value) {
    float number = (float)value;
    unsigned bits;
    memcpy(&bits, &number, 4);
    bits = (bits + 0x1000) & ~0x1fffu;
    memcpy(&number, &bits, 4);
    return number;
}

extern "C" int cublasCreate_v2(Handle** handle) {
    if (refuse_create) return refuse_create;
    *handle = new Handle{true, false, nullptr, nullptr, 0, 0};
    handles++;
    return SUCCESS;
}

extern "C" int cublasDestroy_v2(Handle* handle) {
    if (!valid(handle)) return NOT_INITIALIZED;
    handle->alive = false;          // the memory stays: who uses it again is told
    handles--;
    return SUCCESS;
}

extern "C" int cublasSetMathMode(Handle* handle, int mode) {
    if (!valid(handle)) return NOT_INITIALIZED;
    handle->mode = mode;
    return SUCCESS;
}

extern "C" int cublasSetStream_v2(Handle* handle, void* stream) {
    if (!valid(handle)) return NOT_INITIALIZED;
    handle->has_stream = true;
    handle->stream = stream;
    handle->workspace = nullptr;
    handle->bytes = 0;
    return SUCCESS;
}

extern "C" int cublasSetWorkspace_v2(Handle* handle, void* workspace, size_t bytes) {
    if (!valid(handle)) return NOT_INITIALIZED;
    if (!handle->has_stream || !workspace || bytes < (4u << 20)) return INVALID_VALUE;
    handle->workspace = workspace;
    handle->bytes = bytes;
    return SUCCESS;
}

extern "C" const char* cublasGetStatusName(int status) {
    switch (status) {
        case NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
        case INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
        case EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
        case NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
        default: return "CUBLAS_STATUS_OF_ANOTHER_KIND";
    }
}

// C (m, n) = alpha op(A) (m, k) op(B) (k, n) + beta C, columns one after another, for each of `count` groups.
extern "C" int cublasGemmStridedBatchedEx(
        Handle* handle, int turn_a, int turn_b, int m, int n, int k, const void* alpha, const void* a, int type_a, int lda,
        long long group_a, const void* b, int type_b, int ldb, long long group_b, const void* beta, void* c, int type_c, int ldc,
        long long group_c, int count, int compute, int algorithm) {
    if (!valid(handle) || !handle->workspace) return NOT_INITIALIZED;
    if (fail_next) {
        const int status = fail_next;
        fail_next = 0;
        return status;
    }
    if (turn_a < 0 || turn_a > 1 || turn_b < 0 || turn_b > 1 || m < 1 || n < 1 || k < 1 || count < 1 || algorithm != -1
        || lda < (turn_a ? k : m) || ldb < (turn_b ? n : k) || ldc < m) return INVALID_VALUE;
    const bool singles = type_a == R_32F && type_c == R_32F && (compute == COMPUTE_32F || compute == COMPUTE_TF32);
    const bool halves = type_a == R_16F && (type_c == R_16F || type_c == R_32F) && compute == COMPUTE_32F;
    const bool doubles = type_a == R_64F && type_c == R_64F && compute == COMPUTE_64F;
    if (type_a != type_b || !(singles || halves || doubles)) return NOT_SUPPORTED;
    const bool sums_in_half = type_c == R_16F && !(handle->mode & 16);          // as the real one may, unless told not to
    memset(handle->workspace, 0x5a, handle->bytes);                             // it is ours for the time being
    const int scale = doubles ? R_64F : R_32F;
    const double by = read(alpha, scale, 0), plus = read(beta, scale, 0);
    for (int g = 0; g < count; g++)
        for (int j = 0; j < n; j++)
            for (int i = 0; i < m; i++) {
                double sum = 0;
                for (int l = 0; l < k; l++) {
                    double x = read(a, type_a, g * group_a + (turn_a ? (long long)i * lda + l : (long long)l * lda + i));
                    double y = read(b, type_b, g * group_b + (turn_b ? (long long)l * ldb + j : (long long)j * ldb + l));
                    if (compute == COMPUTE_TF32) x = to_tf32(x), y = to_tf32(y);
                    sum += x * y;
                    if (sums_in_half) sum = (_Float16)(float)sum;
                }
                const long long at = g * group_c + (long long)j * ldc + i;
                write(c, type_c, at, by * sum + (plus != 0 ? plus * read(c, type_c, at) : 0));
            }
    products++;
    last_stream = handle->stream;
    return SUCCESS;
}
