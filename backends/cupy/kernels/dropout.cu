// Random bits, and dropout with them. The generator is Philox 4x64 with 10 rounds (Salmon et al.
// 2011, "Parallel random numbers: as easy as 1, 2, 3"): a function of (key, counter) without state,
// so that each thread computes its own numbers and all backends get the same ones. One call returns
// four 64-bit words, which are used as eight 32-bit words.

struct Words {
    u64 at[4];
    // The 32-bit words in order: the low half of each 64-bit word comes first.
    __device__ unsigned half(int h) const { return (unsigned)(at[h / 2] >> (32 * (h % 2))); }
};

// Block number `block` of the stream that starts at the 256-bit counter (0, 0, step, use). The
// counter is incremented before the first block, as in NumPy's Philox. `block` is below 2^61, so
// there is no carry.
__device__ __forceinline__ Words philox(u64 block, u64 key0, u64 key1, const u64* counter) {
    Words w = {{block + 1, 0, counter[0], counter[1]}};
    for (int round = 0; round < 10; round++) {
        const u64 M0 = 0xD2E7470EE14C6C93ull, M1 = 0xCA5A826395121157ull;
        const u64 high0 = __umul64hi(M0, w.at[0]), low0 = M0 * w.at[0];
        const u64 high1 = __umul64hi(M1, w.at[2]), low1 = M1 * w.at[2];
        w = {{high1 ^ w.at[1] ^ key0, low1, high0 ^ w.at[3] ^ key1, low0}};
        key0 += 0x9E3779B97F4A7C15ull;      // the golden ratio and sqrt(3) - 1, as 64-bit fractions
        key1 += 0xBB67AE8584CAA73Bull;
    }
    return w;
}

// The value of another thread of the warp, each of which must ask for one.
__device__ __forceinline__ unsigned from_lane(unsigned value, int lane) {
    return __shfl_sync(~0u, value, lane);
}

// A thread computes one block of eight words, then the block one grid further on.
#define FOR_BLOCKS(block, n) \
    for (i64 block = (i64)blockIdx.x * blockDim.x + threadIdx.x; block * 8 < (n); \
         block += (i64)gridDim.x * blockDim.x)

// The counter (step, use) is read from device memory, because an argument would be a constant in a
// captured graph.
extern "C" __global__ void random_bits(unsigned* __restrict__ bits, i64 n, u64 key0, u64 key1,
                                       const u64* __restrict__ counter) {
    FOR_BLOCKS(block, n) {
        const Words words = philox(block, key0, key1, counter);
        for (int h = 0; h < 8; h++)
            if (block * 8 + h < n) bits[block * 8 + h] = words.half(h);
    }
}

// y = x keep scale, where keep = word >= threshold, threshold = round(p 2^32),
// scale = 1 / (1 - p). The result is rounded as on the host: the scale is rounded to T first. A
// dropped NaN is 0. V divides n, so no vector crosses the end.
//
// A thread computes the words of eight neighbouring elements, which are several vectors. If it also
// read and wrote these, each access of a warp would have gaps. So the threads of a warp take
// neighbouring vectors, first `lanes` of them, then the next ones, and ask the thread that computed
// the words of their vector for the bits that say what is kept.
template <typename T, int V>
__global__ void dropout(const T* __restrict__ x, T* __restrict__ y, bool* __restrict__ keep, i64 n,
                        u64 threshold, double scale, u64 key0, u64 key1,
                        const u64* __restrict__ counter) {
    typedef typename Wide<T>::type Number;
    const Number factor = Number(T(scale));
    const int PARTS = 8 / V;                        // vectors of eight elements
    const int lanes = min(blockDim.x, 32), lane = threadIdx.x % lanes;
    // All threads of a warp do the same number of turns.
    for (i64 block = (i64)blockIdx.x * blockDim.x + threadIdx.x - lane; block * 8 < n;
         block += (i64)gridDim.x * blockDim.x) {
        const i64 first = block * 8 + lane * V;
        // The elements are loaded while the words are computed.
        Vec<T, V> value[PARTS];
#pragma unroll
        for (int u = 0; u < PARTS; u++)
            if (first + u * lanes * V < n) value[u] = load<V>(x + first + u * lanes * V);
        const Words words = philox(block + lane, key0, key1, counter);
        unsigned mine = 0;
#pragma unroll
        for (int h = 0; h < 8; h++) mine |= (unsigned)(words.half(h) >= threshold) << h;
#pragma unroll
        for (int u = 0; u < PARTS; u++) {
            const int vector = u * lanes + lane;    // of those of the warp
            const unsigned bits = from_lane(mine, vector / PARTS) >> (vector % PARTS * V);
            if (first + u * lanes * V >= n) continue;
            Vec<bool, V> kept;
            for (int k = 0; k < V; k++) {
                kept.at[k] = bits >> k & 1;
                value[u].at[k] = kept.at[k] ? T(Number(value[u].at[k]) * factor) : T(0);
            }
            store(y + first + u * lanes * V, value[u]);
            store(keep + first + u * lanes * V, kept);
        }
    }
}

// dx = dy keep scale, rounded as above.
template <typename T, int V>
__global__ void dropout_dx(const T* __restrict__ dy, const bool* __restrict__ keep,
                           T* __restrict__ dx, double scale, i64 n) {
    typedef typename Wide<T>::type Number;
    const Number factor = Number(T(scale));
    const int U = 4;
    FOR_ARRAY(i, n, U, V) {
        Vec<T, V> turn[U];
        Vec<bool, V> kept[U];
        load_turn(turn, dy, i, n);
        load_turn(kept, keep, i, n);
        for (int u = 0; u < U; u++)
            for (int k = 0; k < V; k++)
                turn[u].at[k] = kept[u].at[k] ? T(Number(turn[u].at[k]) * factor) : T(0);
        store_turn(dx, i, n, turn);
    }
}
