// Tiles in shared memory: how they lie there, and how they are filled from a matrix or from the
// windows of an image.
//
// A tile holds R rows of an operand (rows of A, columns of B) at TILE_K places along k, the axis
// that is summed over. It lies as its source does, with that axis running ALONG_K or ACROSS_K, so
// that each copy is straight, 16 bytes wide where the source allows. The padding of its lines keeps
// the threads of a warp, which then read 8 rows at 4 k's each, in different banks of the shared
// memory.

enum Order { ALONG_K, ACROSS_K };       // which way neighbours in memory lie

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

// Starts to fill a tile from a matrix whose lines are `ld` elements apart; `from` is the tile's
// first element. What lies past the end of the matrix, `rows` and `depth` (along k) elements on,
// becomes 0. All THREADS of the block take part.
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

// Where the windows of an image read: the element that tap k = (c, i, j) sees from pixel p = (oy,
// ox, n) lies at the sum of two offsets, one of p alone and one of k alone, and is on the image if
// the sums of their rows and columns are.
struct Place {
    i64 offset;
    int y, x;
};

constexpr int NOWHERE = -(1 << 29);     // far outside of any image, whatever is added

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

// Starts to fill a tile from an image: rows[r] and along[k] say where its element (r, k) comes
// from. V of them in line are samples of one pixel.
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
