// Tiles in shared memory: their layout, and how they are filled from a matrix or from the windows
// of an image.
//
// A tile holds R rows of an operand (rows of A, columns of B) for TILE_K indices along k, the axis
// that is summed over. Its order is that of its source, ALONG_K or ACROSS_K, so that copies are
// contiguous, 16 bytes wide if the source allows. Its lines are padded: the threads of a warp read
// 8 rows at 4 values of k at once, and the padding puts them into different banks of the shared
// memory.

enum Order { ALONG_K, ACROSS_K };       // direction of neighbours in memory

template <typename T, int R, int TILE_K, int ORDER>
struct Tile {
    typedef T Element;
    // elements in 16 bytes
    static constexpr int WIDE = 16 / sizeof(T);
    // contiguous elements
    static constexpr int LINE = ORDER == ALONG_K ? TILE_K : R;
    static constexpr int LINES = ORDER == ALONG_K ? R : TILE_K;
    static constexpr int STRIDE = LINE + (ORDER == ALONG_K ? WIDE : 8);
    static constexpr int SIZE = LINES * STRIDE;
    __device__ static int at(int r, int k) {
        return ORDER == ALONG_K ? r * STRIDE + k : k * STRIDE + r;
    }
};

// Starts to fill a tile from a matrix whose lines are `ld` elements apart; `from` is the first
// element of the tile. From there, the matrix has `rows` rows and `depth` elements along k left;
// elements outside of it become 0. All THREADS threads of the block take part.
template <class Tile, int THREADS, int V, int ORDER, typename T>
__device__ __forceinline__ void fill_from_matrix(T* tile, const T* from, i64 ld, int rows,
                                                 int depth) {
    const int line = ORDER == ALONG_K ? depth : rows, lines = ORDER == ALONG_K ? rows : depth;
    static_assert(Tile::LINE * Tile::LINES % (THREADS * V) == 0, "each thread copies as much");
#pragma unroll(V > 1 ? 16 : 1)
    for (int part = 0; part < Tile::LINE * Tile::LINES; part += THREADS * V) {
        const int q = part + threadIdx.x * V, place = q % Tile::LINE, l = q / Tile::LINE;
        const bool valid = place < line && l < lines;
        copy_async<V * sizeof(T)>(tile + l * Tile::STRIDE + place,
                                  valid ? from + l * ld + place : from, valid);
    }
}

// A position in an image. Tap k = (c, i, j) of output pixel p = (oy, ox, n) reads the element at
// the sum of two positions, one that depends on p and one that depends on k. The element is on the
// image if the sums of the rows and of the columns are.
struct Place {
    i64 offset;
    int y, x;
};

constexpr int NOWHERE = -(1 << 29);     // outside of every image, also after an addition

__device__ __forceinline__ Place pixel(unsigned p, unsigned pixels, const Window& w) {
    if (p >= pixels) return {0, NOWHERE, NOWHERE};
    const unsigned q = p / w.N, n = p % w.N;
    const int y = (int)(q / w.OW) * w.stride_h - w.top, x = (int)(q % w.OW) * w.stride_w - w.left;
    return {((i64)y * w.W + x) * w.N + n, y, x};
}

__device__ __forceinline__ Place tap(unsigned k, unsigned taps, const Window& w) {
    if (k >= taps) return {0, NOWHERE, NOWHERE};
    const unsigned ci = k / w.KW, c = ci / w.KH;
    const int y = (int)(ci % w.KH) * w.dilation_h, x = (int)(k % w.KW) * w.dilation_w;
    return {(((i64)c * w.H + y) * w.W + x) * w.N, y, x};
}

// Starts to fill a tile from an image: its element (r, k) comes from rows[r] + along[k]. V
// neighbours are samples of one pixel.
template <class Tile, int THREADS, int V, int ORDER, typename T>
__device__ __forceinline__ void fill_from_image(T* tile, const T* image, const Place* rows,
                                                const Place* along, const Window& w) {
#pragma unroll(V > 1 ? 16 : 1)
    for (int part = 0; part < Tile::LINE * Tile::LINES; part += THREADS * V) {
        const int q = part + threadIdx.x * V, place = q % Tile::LINE, l = q / Tile::LINE;
        const Place a = rows[ORDER == ALONG_K ? l : place], b = along[ORDER == ALONG_K ? place : l];
        const bool valid = inside(a.y + b.y, w.H) && inside(a.x + b.x, w.W);
        copy_async<V * sizeof(T)>(tile + l * Tile::STRIDE + place,
                                  valid ? image + (a.offset + b.offset) : image, valid);
    }
}
