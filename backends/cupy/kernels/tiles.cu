// Tiles in shared memory: their layout, and how they are filled from a matrix or from the windows
// of an image.
//
// A tile holds R rows of an operand (rows of A, columns of B) for TILE_K indices along k, the axis
// that is summed over. Its order is that of its source, ALONG_K or ACROSS_K, so that copies are
// contiguous, 16 bytes wide if the source allows.
//
// Shared memory has 32 banks of 4 bytes, and threads that access different words of one bank at
// once have to wait for each other. Copies go along the lines of a tile, reads also across them, 8
// lines at a time. So the 16-byte pieces of a line change places, in each line in another way: then
// 8 pieces that are accessed at once fill all banks, along and across.

enum Order { ALONG_K, ACROSS_K };       // direction of neighbours in memory

template <typename T, int R, int TILE_K, int ORDER_>
struct Tile {
    typedef T Element;
    static constexpr int ROWS = R, ORDER = ORDER_, SIZE = R * TILE_K;
    // elements in 16 bytes, and in all banks
    static constexpr int WIDE = 16 / sizeof(T), BANKS = 128 / sizeof(T);
    // contiguous elements
    static constexpr int LINE = ORDER == ALONG_K ? TILE_K : R;
    static constexpr int LINES = ORDER == ALONG_K ? R : TILE_K;
    // Lines with the same change: those that share the banks. Pieces that change places.
    static constexpr int SHARE = LINE < BANKS ? BANKS / LINE : 1;
    static constexpr int PIECES = (LINE < BANKS ? LINE : BANKS) / WIDE;

    __device__ static int at(unsigned r, unsigned k) {
        return ORDER == ALONG_K ? in_line(r, k) : in_line(k, r);
    }
    __device__ static int in_line(unsigned line, unsigned place) {
        return line * LINE + (place / WIDE ^ line / SHARE % PIECES) * WIDE + place % WIDE;
    }
    // in_line(line + lines, place + places) for at = in_line(line, place), in two instructions if
    // `lines` and `places` are constants. They and the numbers they are added to must have no bits
    // in common.
    __device__ static int after(int at, unsigned lines, unsigned places) {
        return (at ^ (int)(lines / SHARE % PIECES * WIDE ^ places % BANKS))
               + (int)(lines * LINE + places / BANKS * BANKS);
    }
    __device__ static int beyond(int at, unsigned r, unsigned k) {
        return ORDER == ALONG_K ? after(at, r, k) : after(at, k, r);
    }
};

// What one of THREADS threads copies of a tile, V elements at a time: the places place() + d * TURN
// for d < PLACES of the lines line(), line() + APART, ..
template <class Tile, int THREADS, int V>
struct Share {
    static constexpr int TURN = THREADS * V;
    static constexpr int PLACES = Tile::LINE > TURN ? Tile::LINE / TURN : 1;
    static constexpr int APART = Tile::LINE > TURN ? 1 : TURN / Tile::LINE;
    static constexpr int LINES = Tile::LINES / APART;
    static_assert(Tile::SIZE % TURN == 0, "each thread copies as much");
    __device__ static unsigned place() { return threadIdx.x * V % Tile::LINE; }
    __device__ static unsigned line() { return threadIdx.x * V / Tile::LINE; }
    __device__ static int at() { return Tile::in_line(line(), place()); }
};

// Starts to fill a tile from a matrix whose lines are `ld` elements apart. `from` and `at` are where
// this thread's share begins in the matrix and in the tile. From there, the matrix has `lines`
// lines and `places` elements of a line left; elements outside of it become 0.
template <class Tile, int THREADS, int V, typename T>
__device__ __forceinline__ void fill_from_matrix(T* tile, int at, const T* from, i64 ld, int lines,
                                                 int places) {
    typedef Share<Tile, THREADS, V> Own;
#pragma unroll(V > 1 ? 16 : 1)
    for (int l = 0; l < Own::LINES; l++, from += Own::APART * ld)
#pragma unroll
        for (int d = 0; d < Own::PLACES; d++)
            copy_async<V * sizeof(T)>(tile, Tile::after(at, l * Own::APART, d * Own::TURN),
                                      from + d * Own::TURN,
                                      l * Own::APART < lines && d * Own::TURN < places);
}

// The window of an image, and multipliers for the divisions by its sizes.
struct Divisor { unsigned magic; int shift; };
struct Image {
    Window window;
    Divisor by_N, by_OW, by_KH, by_KW;
};

// n / d for n < 2^31, with magic = ceil(2^(31 + shift) / d) and 2^shift >= d; plans.py has the
// proof. A division by a number that the compiler does not know takes some 20 instructions.
__device__ __forceinline__ unsigned quotient(unsigned n, Divisor d) {
    return __umulhi(2 * n, d.magic) >> d.shift;
}

// A position in an image. Tap k = (c, i, j) of output pixel p = (oy, ox, n) reads the element at
// the sum of two positions, one that depends on p and one that depends on k. The element is on the
// image if the sums of the rows and of the columns are.
struct alignas(16) Place {
    i64 offset;
    int y, x;
};

constexpr int NOWHERE = -(1 << 29);     // outside of every image, also after an addition

__device__ __forceinline__ Place pixel(unsigned p, unsigned pixels, const Image& image) {
    if (p >= pixels) return {0, NOWHERE, NOWHERE};
    const Window& w = image.window;
    const unsigned q = quotient(p, image.by_N), n = p - q * w.N;
    const unsigned oy = quotient(q, image.by_OW), ox = q - oy * w.OW;
    const int y = (int)oy * w.stride_h - w.top, x = (int)ox * w.stride_w - w.left;
    return {((i64)y * w.W + x) * w.N + n, y, x};
}

__device__ __forceinline__ Place tap(unsigned k, unsigned taps, const Image& image) {
    if (k >= taps) return {0, NOWHERE, NOWHERE};
    const Window& w = image.window;
    const unsigned ci = quotient(k, image.by_KW), c = quotient(ci, image.by_KH);
    const int y = (int)(ci - c * w.KH) * w.dilation_h, x = (int)(k - ci * w.KW) * w.dilation_w;
    return {(((i64)c * w.H + y) * w.W + x) * w.N, y, x};
}

// The same as a pointer into an image.
template <typename T>
struct Spot {
    const T* from;
    int y, x;
};

__device__ __forceinline__ Place load_shared(const Place* from) {
    const Vec<int, 4> bits = load_shared<4>((const int*)from);
    return {(i64)((u64)(unsigned)bits.at[1] << 32 | (unsigned)bits.at[0]), bits.at[2], bits.at[3]};
}

// Starts to fill a tile from an image. The element at place() + d * TURN of a line comes from
// own[d] + by_line[line]. V neighbours are samples of one pixel.
template <class Tile, int THREADS, int V, int MOST, typename T>
__device__ __forceinline__ void fill_from_image(T* tile, int at, const Spot<T> (&own)[MOST],
                                                const Place* by_line, const Window& w) {
    typedef Share<Tile, THREADS, V> Own;
    // Several positions are loaded before they are used, because a load takes long.
    constexpr int AHEAD = V > 1 && Own::LINES % 4 == 0 ? 4 : 1;
#pragma unroll(V > 1 ? 16 : 1)
    for (int first = 0; first < Own::LINES; first += AHEAD) {
        Place of_line[AHEAD];
#pragma unroll
        for (int l = 0; l < AHEAD; l++)
            of_line[l] = load_shared(by_line + Own::line() + (first + l) * Own::APART);
#pragma unroll
        for (int l = 0; l < AHEAD; l++)
#pragma unroll
            for (int d = 0; d < Own::PLACES; d++) {
                const int y = own[d].y + of_line[l].y, x = own[d].x + of_line[l].x;
                copy_async<V * sizeof(T)>(
                    tile, Tile::after(at, (first + l) * Own::APART, d * Own::TURN),
                    own[d].from + of_line[l].offset,
                    (unsigned)y < (unsigned)w.H && (unsigned)x < (unsigned)w.W);
            }
    }
}
