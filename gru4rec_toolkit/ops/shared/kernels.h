// The computations of ops/*/op.py: plain C functions on row-major float32 matrices.
//
// Every function here has a definition in numpy, the `perform` of its Op; tests compare the two.
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void gk_set_threads(int n_threads);
int gk_threads(void);

// A model of a machine with as many cores as the team has threads: team.h.
void gk_simulate_team(int on);
double gk_nanoseconds_saved(void);

// c (m, n) = op(a) op(b); op transposes where the flag is set. lda, ldb, ldc: elements from row to
// row.
void gk_product(int trans_a, int trans_b, int m, int n, int k, const float* a, int lda,
                const float* b, int ldb, float* c, int ldc);

// Whether products of a mini-batch go without BLAS (tiles.h), so that the products of a row do not
// depend, in their last bit, on where it lies in b^T: equal items have equal scores.
int gk_has_tiles(void);

// Whether they are used (they are, at first); without them all products are BLAS's, for comparison.
void gk_use_tiles(int use);

// out (n, width) = table[index]; returns -1, or the first position whose index is out of range.
long gk_gather(const float* table, long n_rows, long width, const int32_t* index, long n,
               float* out);

// Merges equal ids of each row of ids (rows, n): the row then begins with its n_distinct[row]
// different ones in ascending order, and copies (rows, n) say how often each came up. Returns 0, 1
// if an id is negative, 2 if there is no memory.
int gk_merge(long rows, long n, int32_t* ids, float* copies, int64_t* n_distinct);

// ids (n,) drawn from an alias table (n_items,); `first` is the number of draws made before.
void gk_draw(uint64_t seed, uint64_t first, long n, long n_items, const uint64_t* threshold,
             const int32_t* alias, int32_t* ids);

enum gk_method { GK_SGD, GK_ADAGRAD, GK_RMSPROP, GK_ADADELTA, GK_ADAM };

// How parameters are updated. States that a method does not have are NULL; `time` is Adam's, one
// value a row; velocity = NULL: no momentum. The table and its states are (n_rows, width).
typedef struct {
    long n_rows, width;
    float *table, *states[2], *time, *velocity;
    float learning_rate, momentum, l2, epsilon, decays[2];
} gk_rule;

// One set of looked-up rows of a table and the gradient of each of them.
typedef struct {
    long n;
    const int32_t* index;     // (n,)
    const float* gradient;    // (n, width), summed over the copies of the row
    const float* weights;     // (n,) how many copies, or NULL for one each
    const float* rows;        // (n, width), the values that were looked up, or NULL without L2
} gk_lookup;

// Update the table in place; lookups are in the order of the mini-batch. Returns 0, 1 if there is
// no memory, 2 if an index is out of range (nothing is updated then).
int gk_update_rows(const gk_rule* rule, const gk_lookup* lookups, int n_lookups);

// The same for a whole parameter of n elements and its gradient.
void gk_update_dense(const gk_rule* rule, long n, const float* gradient);

enum gk_activation { GK_LINEAR, GK_RELU, GK_TANH, GK_LEAKY, GK_SELU };

typedef struct {
    int kind;
    float a, b;
} gk_act;

// What the compiler makes of an activation may differ, in the last bit, from place to place: between
// two loops that it is inlined into, and between a loop over vectors and the rest of less than one.
// Values that are compared with each other are therefore activated by this function alone, which
// works on whole groups of lanes: equal x give equal values. In place; n is a multiple of GK_LANES.
enum { GK_LANES = 16 };
void gk_activate(long n, float* x, gk_act act);

enum gk_loss { GK_CROSS_ENTROPY, GK_XE_LOGIT, GK_BPR, GK_BPR_MAX, GK_TOP1, GK_TOP1_MAX };

// Takes scores (m, n) without their offsets (n,) (biases and the like) and turns them, in place,
// into their gradient; the offsets' gradient goes to d_offsets (n,). Both are multiplied by scale,
// as is the loss that is returned. The target of row i is column i; column j stands for weights[j]
// equal ones. NaN if there is no memory. parameter: smoothing of the cross-entropies, bpreg.
double gk_loss(long m, long n, float* scores, const float* offsets, const float* weights,
               float* d_offsets, float scale, float parameter, gk_act act);

// One GRU step of m sessions: x (m, 3n) and bias (3n,) are the input's share of candidate, reset
// and update; h (m, n) the state. Writes rz (m, 2n), reset_h = h * reset, the candidate, and out.
void gk_gru(long m, long n, const float* x, const float* bias, const float* h, const float* w_rz,
            const float* w_h, gk_act act, float* rz, float* reset_h, float* candidate, float* out);

// Gradient d_x (m, 3n) and d_bias (3n,) of gk_gru, given that of out. scratch: (m, n).
void gk_gru_gradient(long m, long n, const float* d_out, const float* h, const float* w_h,
                     gk_act act, const float* rz, const float* candidate, float* scratch,
                     float* d_x, float* d_bias);

// out = x / (1 - p) where element i of mask number `counter` keeps it, else 0.
void gk_dropout(long n, const float* x, float p, uint64_t seed, uint64_t counter, float* out);

// For each of m targets, how many other items have a higher and an equal score: hidden (m, width),
// rows (n_items, width) and biases (n_items,) of the items, whose ids say which one is the target;
// target_scores (m,) with their biases. Scores are activated here, the targets' as the items'.
// Returns 1 if there is no memory.
int gk_count_ranks(long m, long width, const float* hidden, long n_items, const float* rows,
                   const float* biases, const int32_t* ids, const int32_t* targets,
                   const float* target_scores, gk_act act, int64_t* better, int64_t* equal);

// For each of m sessions the k best items, best first, and their activated scores, both (m, k): of
// equal scores the lower item comes first. Items left_out[starts[i]] .. left_out[starts[i + 1] - 1],
// in ascending order, are not for session i. The rest of what there is not is -1 and minus infinity.
// Returns 1 if there is no memory.
int gk_top_k(long m, long width, const float* hidden, long n_items, const float* rows,
             const float* biases, const int32_t* starts, const int32_t* left_out, gk_act act,
             long k, int32_t* items, float* best);

#ifdef __cplusplus
}
#endif
