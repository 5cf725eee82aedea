/* SPDX-License-Identifier: Apache-2.0
 *
 * nibble: low-bit optimizers. This header is the whole C API of libnibble.
 *
 * Use, in four steps:
 *   1. nibble_optimizer_create()     a rule ("adamw") and a state format ("int8")
 *   2. nibble_optimizer_add_param()  once for each parameter tensor: name, shape, formats
 *   3. nibble_optimizer_bind()       once: where the parameter's weights are
 *   4. nibble_optimizer_step()       each step: pointers to the gradients; weights change in place
 *
 * Conventions
 * Status     Functions return nibble_status: 0, or a negative code; then nibble_last_error() tells
 *            what was wrong, and nothing has changed. The library never prints, exits or aborts.
 * Sizes      Elements, blocks and bytes are 64-bit. Tensors are contiguous, in row-major order.
 * Structs    The first field, struct_size, is sizeof the struct as the caller knows it. Zero in
 *            any other field means its default. Fields are only ever appended; a longer struct
 *            from a newer caller is accepted if what this library does not know is zero.
 * Strings    Zero-terminated. Those passed in are copied during the call.
 * Ownership  Weights and gradients are the caller's: weights are borrowed from bind until the
 *            optimizer is destroyed or bound elsewhere, all else during the call. States belong to
 *            the optimizer.
 * Threads    Distinct optimizers may be used from distinct threads; one optimizer from one thread
 *            at a time. Work runs on the library's threads (nibble_set_thread_count); calls return
 *            when it is done.
 * Bits       The same inputs give the same bits whatever the thread count, the instruction set and
 *            the caller's floating-point environment; of a NaN only that it is one.
 */
#ifndef NIBBLE_NIBBLE_H
#define NIBBLE_NIBBLE_H

#include <stdint.h>

#define NIBBLE_VERSION_MAJOR 0
#define NIBBLE_VERSION_MINOR 1
#define NIBBLE_VERSION_PATCH 0

#if defined(__GNUC__)
#define NIBBLE_API __attribute__((visibility("default")))
#else
#define NIBBLE_API
#endif

#if defined(__cplusplus)
#define NIBBLE_NOEXCEPT noexcept
extern "C" {
#else
#define NIBBLE_NOEXCEPT
#endif

/* ---- Status ------------------------------------------------------------------------------- */

typedef int32_t nibble_status;

enum {
  NIBBLE_OK = 0,
  NIBBLE_INVALID_ARGUMENT = -10, /* what can never work */
  NIBBLE_WRONG_ORDER = -20,      /* a legal call, but not now */
  NIBBLE_UNSUPPORTED = -30,      /* a valid request that this build or machine cannot serve */
  NIBBLE_OUT_OF_MEMORY = -40,
  NIBBLE_IO = -50,
  NIBBLE_CORRUPT = -60,
  NIBBLE_NON_FINITE = -70, /* gradients with NaN or infinity; the step was not taken */
  NIBBLE_INTERNAL = -100   /* a defect of the library's own */
};

/* "NIBBLE_OK", ...; "unknown status" for any other number. Never NULL; static. */
NIBBLE_API const char* nibble_status_name(nibble_status status) NIBBLE_NOEXCEPT;

/* What the last failing call on this thread complained of: one line, never NULL, valid until the
 * next failing call on this thread. Successful calls leave it as it is. */
NIBBLE_API const char* nibble_last_error(void) NIBBLE_NOEXCEPT;

/* "0.1.0". Static. */
NIBBLE_API const char* nibble_version_string(void) NIBBLE_NOEXCEPT;

/* ---- Process-wide settings. Not to be changed while any other call runs. ------------------ */

/* Threads for all work of this process; 0 restores the default: the CPUs that the process may use
 * (affinity and cgroup quota). INVALID_ARGUMENT if negative. */
NIBBLE_API nibble_status nibble_set_thread_count(int32_t threads) NIBBLE_NOEXCEPT;
NIBBLE_API int32_t nibble_thread_count(void) NIBBLE_NOEXCEPT;

/* The instruction set: "scalar", "avx2", "avx512"; NULL or "auto" for the best. Without a call the
 * environment variable NIBBLE_ISA is read once. UNSUPPORTED if this CPU lacks it,
 * INVALID_ARGUMENT for an unknown name; the choice then stays. For tests: results do not differ. */
NIBBLE_API nibble_status nibble_set_isa(const char* name) NIBBLE_NOEXCEPT;

/* The one in use; "avx512_base" is AVX-512 without VBMI. NULL, with an error message, if NIBBLE_ISA
 * asks for what cannot be. Static. */
NIBBLE_API const char* nibble_isa_name(void) NIBBLE_NOEXCEPT;

/* ---- Rules and formats, by name ----------------------------------------------------------- */

/* Names for i in [0, count); NULL outside. Static.
 *
 * Rules are the update formulas (with their sources in src/math/rules):
 *   "adamw"      Loshchilov and Hutter, ICLR 2019            decay before the update
 *   "adam"       Kingma and Ba, ICLR 2015                    decay is an L2 term in the gradient
 *   "amsgrad"    Reddi, Kale and Kumar, ICLR 2018            decay before
 *   "lion"       Chen et al., NeurIPS 2023                   decay before
 *   "sgd"        with (Nesterov's) momentum, as PyTorch      L2
 *                (undampened at the optimizer's first step; PyTorch's first is the parameter's)
 *   "adagrad"    Duchi, Hazan and Singer, JMLR 2011          L2
 *   "rmsprop"    Tieleman and Hinton, 2012                   L2
 *   "ademamix"   Pagliardini, Ablin and Grangier, ICLR 2025  decay before
 *   "lamb"       You et al., ICLR 2020                       decay within the trust ratio
 *   "adafactor"  Shazeer and Stern, ICML 2018                decay before
 *   "muon"       Jordan et al., 2024; matrices only          decay before
 *
 * State formats are how optimizer states are kept:
 *   "fp32"         4 bytes an element
 *   "bf16"         2 bytes, rounded to nearest even
 *   "fp8"          E4M3 and a float scale a block of 256 (torchao's layout)
 *   "int8"         1 byte and a float absmax a block of 256, through the dynamic map of Dettmers et
 *                  al., ICLR 2022 (bitsandbytes' layout: signed map for first moments, unsigned for
 *                  second ones)
 *   "int8_log"     int8, but second moments on a geometric map with a reserved zero
 *   "int8_linear"  1 byte, evenly spaced: for momenta
 *   "int4"         half a byte and a float absmax a block of 128 (Li et al., NeurIPS 2023, group
 *                  variant; torchao's layout, the even element in the high half)
 *   "int4_rank1"   int4, second moments of matrices with rank-1 scales (the same paper, 4.2)
 *   "nf4", "fp4"   only for nibble_quantize
 *
 * Weight formats are how a parameter's weights are kept:
 *   "fp32"               F32
 *   "bf16_master"        BF16, and a float master copy in the optimizer (6 bytes an element)
 *   "bf16_correction16"  BF16, and the 16 bits below in the optimizer: exact (4 bytes)
 *   "bf16_correction8"   BF16, and the next 8 bits (3 bytes)
 *   "bf16_stochastic"    BF16, rounded stochastically, nothing beside it
 *   "bf16_nearest"       BF16, rounded to nearest: small updates are lost (a control)
 *   "int8_stochastic"    I8 codes and a float scale a block (absmax / 127), rounded stochastically
 */
NIBBLE_API int32_t nibble_rule_count(void) NIBBLE_NOEXCEPT;
NIBBLE_API const char* nibble_rule_name(int32_t i) NIBBLE_NOEXCEPT;
NIBBLE_API int32_t nibble_format_count(void) NIBBLE_NOEXCEPT;
NIBBLE_API const char* nibble_format_name(int32_t i) NIBBLE_NOEXCEPT;
NIBBLE_API int32_t nibble_weight_format_count(void) NIBBLE_NOEXCEPT;
NIBBLE_API const char* nibble_weight_format_name(int32_t i) NIBBLE_NOEXCEPT;

/* A rule's hyper-parameters: names for i = 0, 1, ...; NULL behind the last and for an unknown rule.
 * out_default may be NULL. Every rule has "learning_rate" and "weight_decay". */
NIBBLE_API const char* nibble_rule_hyper(const char* rule, int32_t i,
                                         double* out_default) NIBBLE_NOEXCEPT;

/* ---- Optimizer ---------------------------------------------------------------------------- */

typedef struct nibble_optimizer nibble_optimizer;

/* What happens to gradients with NaN or infinity (after scaling). */
enum {
  NIBBLE_NONFINITE_SKIP_STEP = 0,    /* step() changes nothing and returns NIBBLE_NON_FINITE */
  NIBBLE_NONFINITE_SKIP_ELEMENT = 1, /* those elements are not updated; where a rule updates whole
                                        matrices, they count as 0 in it: under "adafactor" such a
                                        gradient is 0; under "muon" its momentum stays, 0 goes into
                                        the matrix that is orthogonalised, and the weight moves by
                                        what comes out */
  NIBBLE_NONFINITE_PROPAGATE = 2     /* not looked for */
};

/* A hyper-parameter by name (nibble_rule_hyper). Here zero is zero. As a float, which kernels
 * compute in, it must be finite, and not 0 unless it is 0; grad_scale the same. */
typedef struct nibble_hyper {
  const char* name;
  double value;
} nibble_hyper;

typedef struct nibble_optimizer_desc {
  uint32_t struct_size;
  uint32_t nonfinite;       /* NIBBLE_NONFINITE_*; default skip step */
  const char* rule;         /* default "adamw" */
  const char* state_format; /* default "int8"; or by state: "exp_avg=int8,exp_avg_sq=fp32" */
  /* Whose conventions:
   *   "default"   the safest: a positive second moment never takes the zero code, blocks that
   *               overflow saturate
   *   "torch"     torch.optim; fp32 states only
   *   "torchao"   torchao's quantiser (division, ties up, absmax at least 1e-12);
   *               states fp32, fp8, int8, int4
   *   "bnb"       bitsandbytes' reference quantiser (nearest, ties down); states fp32, int8
   *   "bnb-cuda"  bitsandbytes' CUDA kernel (ties to even, sign fix, decay after the update);
   *               states fp32, int8. Elements with non-finite gradients are skipped unless
   *               `nonfinite` is NIBBLE_NONFINITE_PROPAGATE: SKIP_STEP, which is 0, reads as the
   *               mode's default (to skip a step there, use found_inf) */
  const char* mode;
  int64_t block_size; /* of quantised states: a power of two, 32 .. 4096; 0: the format's */
  int64_t min_quantized_elements; /* smaller parameters keep fp32 states; default 4096 */
  double learning_rate;           /* these five: 0 is the rule's default; not every rule has all */
  double beta1;
  double beta2;
  double eps;
  double weight_decay;
  const nibble_hyper* hypers; /* n_hypers of any others; borrowed during the call */
  int64_t n_hypers;
  const char* weight_format; /* default "fp32" */
  const char* decay;         /* decoupled decay "before" or "after" the update; default: the mode's.
                                "lamb" decays within its trust ratio whatever the mode */
  uint64_t seed;             /* of stochastic rounding */
  const char* device; /* "host" (default) or "cuda" or "cuda:1": where states are and steps run.
                         Weights, gradients, found_inf and bound hyper-parameters are then memory
                         of that device. UNSUPPORTED where there is none */
} nibble_optimizer_desc;

/* *out is the caller's until nibble_optimizer_destroy. INVALID_ARGUMENT, UNSUPPORTED (an unknown
 * rule, format or mode, or a pair that does not go together), OUT_OF_MEMORY; *out is NULL then. */
NIBBLE_API nibble_status nibble_optimizer_create(nibble_optimizer** out,
                                                 const nibble_optimizer_desc* desc) NIBBLE_NOEXCEPT;

/* Frees it and its states. NULL is allowed. */
NIBBLE_API void nibble_optimizer_destroy(nibble_optimizer* opt) NIBBLE_NOEXCEPT;

/* ---- Groups: parameters with hyper-parameters, and if wanted a rule, of their own ---------- */

typedef struct nibble_group_desc {
  uint32_t struct_size;
  uint32_t reserved;          /* 0 */
  const char* rule;           /* default: the optimizer's, with its hyper-parameters so far */
  const nibble_hyper* hypers; /* n_hypers that differ; borrowed during the call */
  int64_t n_hypers;
} nibble_group_desc;

/* Group 0 is the optimizer's own; further ones are numbered from 1. out_group may be NULL. */
NIBBLE_API nibble_status nibble_optimizer_add_group(nibble_optimizer* opt,
                                                    const nibble_group_desc* desc,
                                                    int64_t* out_group) NIBBLE_NOEXCEPT;

/* Between steps (learning-rate schedules are the caller's). Names: nibble_rule_hyper. Zero is zero.
 * WRONG_ORDER where a state that was left out at creation, since its hyper-parameter was 0
 * ("momentum"), would be needed now. */
NIBBLE_API nibble_status nibble_optimizer_set_group_hyper(nibble_optimizer* opt, int64_t group,
                                                          const char* name,
                                                          double value) NIBBLE_NOEXCEPT;
NIBBLE_API nibble_status nibble_optimizer_get_group_hyper(const nibble_optimizer* opt,
                                                          int64_t group, const char* name,
                                                          double* out) NIBBLE_NOEXCEPT;
/* The same for group 0. */
NIBBLE_API nibble_status nibble_optimizer_set_hyper(nibble_optimizer* opt, const char* name,
                                                    double value) NIBBLE_NOEXCEPT;
NIBBLE_API nibble_status nibble_optimizer_get_hyper(const nibble_optimizer* opt, const char* name,
                                                    double* out) NIBBLE_NOEXCEPT;
/* "learning_rate" of group 0. */
NIBBLE_API nibble_status nibble_optimizer_set_learning_rate(nibble_optimizer* opt,
                                                            double value) NIBBLE_NOEXCEPT;

/* Parameters added later whose name matches `pattern` (with * and ?, the whole name, case counts)
 * get this state format, whatever their size. The last matching pattern wins. One by state
 * ("exp_avg=int8") must name states of the rule of each parameter that it comes to be used for:
 * nibble_optimizer_add_param checks that, for this and the optimizer's own format. */
NIBBLE_API nibble_status nibble_optimizer_set_format(nibble_optimizer* opt, const char* pattern,
                                                     const char* state_format) NIBBLE_NOEXCEPT;

/* ---- Parameters ---------------------------------------------------------------------------- */

typedef struct nibble_param_desc {
  uint32_t struct_size;
  uint32_t n_dims;           /* 0: a scalar; at most 64 */
  const char* name;          /* unique; the key in checkpoints */
  const int64_t* shape;      /* n_dims extents; matrix rules see [all but the last, last] */
  const char* weight_format; /* default: the optimizer's */
  const char* state_format;  /* default: by nibble_optimizer_set_format; else fp32 for parameters
                                that are small or whose name contains norm, embed, ln_, wte or wpe
                                (in any case); else the optimizer's. A format named here is used
                                whatever the size. */
  const char* grad_dtype;    /* "F32" or "BF16"; default: the weights', or F32 for int8 weights */
  int64_t group;             /* default 0 */
  uint32_t tensor_id;        /* names the random numbers; 0: a hash of the name */
  uint32_t reserved;         /* 0 */
} nibble_param_desc;

/* Allocates the parameter's states, at zero. Parameters are numbered from 0 in the order of these
 * calls. out_index and out_state_bytes may be NULL. Errors as for create. */
NIBBLE_API nibble_status nibble_optimizer_add_param(nibble_optimizer* opt,
                                                    const nibble_param_desc* desc,
                                                    int64_t* out_index,
                                                    uint64_t* out_state_bytes) NIBBLE_NOEXCEPT;

/* Where the parameter's weights are: count elements of its dtype. Borrowed until destroyed or bound
 * elsewhere. The first bind also takes a master copy from them, where the format has one, unless
 * that was loaded before. */
NIBBLE_API nibble_status nibble_optimizer_bind(nibble_optimizer* opt, int64_t param,
                                               void* weights) NIBBLE_NOEXCEPT;
/* For "int8_stochastic": codes, and a scale for each block of block_size (nibble_param_info). */
NIBBLE_API nibble_status nibble_optimizer_bind_quantized(nibble_optimizer* opt, int64_t param,
                                                         void* codes,
                                                         float* scales) NIBBLE_NOEXCEPT;

/* ---- Steps --------------------------------------------------------------------------------- */

typedef struct nibble_step_desc {
  uint32_t struct_size;
  /* Not 0: the caller warrants that grad * grad_scale is finite (nibble_global_norm has told, say),
   * which spares a pass over the gradients. */
  uint32_t grads_are_finite;
  const void* const* grads; /* n_grads pointers, one a parameter, in order, of its grad_dtype; not
                               changed */
  int64_t n_grads;
  double grad_scale; /* multiplies every gradient (as a float), e.g. 1 / loss scale; default 1 */
  int64_t* out_nonfinite;  /* may be NULL: how many non-finite gradients were found */
  double max_grad_norm;    /* > 0: gradients are scaled by min(1, max_grad_norm / (norm + 1e-6)),
                              norm the Euclidean one of all scaled gradients that are finite */
  double* out_grad_norm;   /* may be NULL: that norm, before clipping. Infinity where a gradient is
                              not finite, but under NIBBLE_NONFINITE_SKIP_ELEMENT */
  const float* found_inf;  /* may be NULL: not 0 there means that the step is not taken, as with
                              non-finite gradients */
  uint32_t collect_errors; /* not 0: nibble_optimizer_state_error will tell of this step; slow */
  uint32_t skip_missing;   /* not 0: a parameter whose gradient is NULL is left out of this step;
                              otherwise that is an error */
  void* stream;            /* on CUDA: the cudaStream_t that the step is enqueued on */
} nibble_step_desc;

/* One step of all parameters: weights and states change in place. All or nothing: after any error
 * nothing has changed. WRONG_ORDER if a parameter is not bound; NON_FINITE as `nonfinite` says.
 * Gradients must not overlap weights. Nothing is allocated, but for collect_errors.
 *
 * On CUDA the step is enqueued and the call does not wait, so what the gradients are is not known
 * when it returns: it returns OK, and nibble_optimizer_step_result tells later. With out_nonfinite
 * or out_grad_norm it waits for them and returns as on the host. The first step, and one after
 * parameters were added or bound, makes tables and waits; after it a step can be captured in a CUDA
 * graph (without out_* and collect_errors) if nothing has changed since: gradients' addresses,
 * hyper-parameters, the step count; else WRONG_ORDER. A replay takes what was captured: what
 * nibble_optimizer_set_* and bind_group_hyper change reaches ordinary steps alone. After add_param,
 * bind or destroy a graph must not be replayed: its tables are gone. */
NIBBLE_API nibble_status nibble_optimizer_step(nibble_optimizer* opt,
                                               const nibble_step_desc* desc) NIBBLE_NOEXCEPT;

/* Of the last step on a device: whether it was taken (1 or 0), how many gradients were not finite,
 * and their norm if it was asked for (by max_grad_norm or out_grad_norm). Waits for it. Any out may
 * be NULL. WRONG_ORDER before the first step, and for an optimizer on the host. */
NIBBLE_API nibble_status nibble_optimizer_step_result(const nibble_optimizer* opt,
                                                      int32_t* out_taken, int64_t* out_nonfinite,
                                                      double* out_grad_norm) NIBBLE_NOEXCEPT;

/* On a device: from now on the hyper-parameter is read from this float of the device's memory in
 * each step, also when a graph that was captured since is replayed. NULL: no longer. UNSUPPORTED on
 * the host, and for "ns_steps", which decides what is launched; WRONG_ORDER as for set_hyper. */
NIBBLE_API nibble_status nibble_optimizer_bind_group_hyper(nibble_optimizer* opt, int64_t group,
                                                           const char* name,
                                                           const float* value) NIBBLE_NOEXCEPT;

/* Steps taken, which the bias corrections and random numbers count; set it when resuming. At
 * most 2^53: there a step is refused (WRONG_ORDER). */
NIBBLE_API nibble_status nibble_optimizer_step_count(const nibble_optimizer* opt,
                                                     int64_t* out) NIBBLE_NOEXCEPT;
NIBBLE_API nibble_status nibble_optimizer_set_step_count(nibble_optimizer* opt,
                                                         int64_t count) NIBBLE_NOEXCEPT;

/* ---- What a parameter really got, and its states ------------------------------------------ */

typedef struct nibble_param_info {
  uint32_t struct_size;     /* set by the caller, as in descriptors */
  uint32_t n_states;        /* arrays of nibble_optimizer_state_info */
  const char* name;         /* strings live as long as the optimizer */
  const char* state_format; /* what is used; by state where they differ: "exp_avg=int8,...". Under
                               "adafactor" a matrix has "exp_avg_sq=factored": fp32 arrays
                               "exp_avg_sq_row" and "exp_avg_sq_col" */
  const char* reason;       /* why */
  int64_t count;            /* elements */
  int64_t block_size;       /* 0 if nothing has blocks */
  uint64_t state_bytes;
  const char* weight_format;
  const char* rule;
  int64_t group;
  const char* placement; /* "host" or "cuda:0" */
} nibble_param_info;

NIBBLE_API nibble_status nibble_optimizer_param_count(const nibble_optimizer* opt,
                                                      int64_t* out) NIBBLE_NOEXCEPT;
NIBBLE_API nibble_status nibble_optimizer_param_info(const nibble_optimizer* opt, int64_t param,
                                                     nibble_param_info* out) NIBBLE_NOEXCEPT;

/* Bytes that the optimizer holds beside states: scratch of the rules that work on matrices (one for
 * all parameters; on CUDA it is made by the first step) and of rank-1 scales (maxima of rows and
 * columns, about 3 % of such states). Some hundred bytes a parameter of its own records are not in
 * it. */
NIBBLE_API nibble_status nibble_optimizer_workspace_bytes(const nibble_optimizer* opt,
                                                          uint64_t* out) NIBBLE_NOEXCEPT;

/* How well a state was kept by the last step with collect_errors. A state that the parameter does
 * not keep in a format of its own (see nibble_optimizer_state_info) is NIBBLE_INVALID_ARGUMENT. */
typedef struct nibble_state_error {
  uint32_t struct_size;
  uint32_t reserved;
  const char* state;   /* "exp_avg"; static */
  const char* format;  /* static */
  double relative_rms; /* root of sum (stored - computed)^2 / sum computed^2 */
  double largest;      /* max |stored - computed| */
  int64_t lost;        /* elements stored as 0 that were not */
} nibble_state_error;

/* For state i = 0, 1, ... of the parameter's rule; INVALID_ARGUMENT behind the last, WRONG_ORDER if
 * no step has collected. */
NIBBLE_API nibble_status nibble_optimizer_state_error(const nibble_optimizer* opt, int64_t param,
                                                      int64_t state,
                                                      nibble_state_error* out) NIBBLE_NOEXCEPT;

/* The states as arrays, for checkpoints of the caller's own. With the same descriptors, loading
 * every array that is set and the step count resumes to the bit. */
typedef struct nibble_state_info {
  uint32_t struct_size;
  uint32_t is_unset; /* 1: "master" or "correction" before the first bind: not to be saved */
  const char* name;  /* "exp_avg", "exp_avg.scale", "exp_avg_sq", ..., "master", "correction" */
  const char* dtype; /* as safetensors writes it: "F32", "U8" */
  int64_t count;     /* elements of that dtype */
  uint64_t bytes;
  const void* data; /* the optimizer's own memory, where `placement` says: read only, changed by
                       step and load_state */
} nibble_state_info;

NIBBLE_API nibble_status nibble_optimizer_state_count(const nibble_optimizer* opt, int64_t param,
                                                      int64_t* out) NIBBLE_NOEXCEPT;
NIBBLE_API nibble_status nibble_optimizer_state_info(const nibble_optimizer* opt, int64_t param,
                                                     int64_t state,
                                                     nibble_state_info* out) NIBBLE_NOEXCEPT;
/* Copies `bytes` bytes, which must be what state_info tells. */
NIBBLE_API nibble_status nibble_optimizer_load_state(nibble_optimizer* opt, int64_t param,
                                                     int64_t state, const void* data,
                                                     uint64_t bytes) NIBBLE_NOEXCEPT;

/* A state of another library, or of another format or block: decoded as described and encoded in
 * the parameter's own format, in mode "default". Where format, map and block are the same the codes
 * are taken as they are. */
typedef struct nibble_import_desc {
  uint32_t struct_size;
  uint32_t low_nibble_first; /* 4-bit codes: 1 if the even element is in the low half (lpmm) */
  const char* state;         /* "exp_avg" */
  const char* format;  /* of the codes: "fp32", "bf16", "fp8", "int8", "int8_log", "int8_linear",
                          "int4" */
  const void* codes;   /* as many as the parameter's elements */
  const float* scales; /* one a block; torchao's fp8 scale is one. NULL for fp32 and bf16 */
  int64_t n_scales;
  const float* map;   /* 256 or 16 values by code, or NULL: the format's own */
  int64_t block_size; /* 0: the smallest power of two that gives n_scales */
} nibble_import_desc;

NIBBLE_API nibble_status nibble_optimizer_import_state(
    nibble_optimizer* opt, int64_t param, const nibble_import_desc* desc) NIBBLE_NOEXCEPT;

/* A state as count floats to dst, for export. */
NIBBLE_API nibble_status nibble_optimizer_export_state(const nibble_optimizer* opt, int64_t param,
                                                       const char* state,
                                                       float* dst) NIBBLE_NOEXCEPT;

/* A checkpoint of states, step count and what describes them (not of weights or hyper-parameters):
 * a directory, which must not exist and appears whole or not at all (src/optim/FORMAT.md). */
NIBBLE_API nibble_status nibble_optimizer_save(const nibble_optimizer* opt,
                                               const char* directory) NIBBLE_NOEXCEPT;
/* Parameters are found by name, in any order, and must be those that were saved, with their rules
 * and element counts, and where the weight format has a state ("master"), that. The same format
 * and block give the same bits; another format or block is converted in mode "default". What was
 * saved before the first bind has no master copy: it is taken from the weights at the next bind or,
 * where weights are bound, the next step. IO, CORRUPT, INVALID_ARGUMENT, UNSUPPORTED (a newer
 * version's); then nothing has changed. */
NIBBLE_API nibble_status nibble_optimizer_load(nibble_optimizer* opt,
                                               const char* directory) NIBBLE_NOEXCEPT;

/* ---- Tensor functions --------------------------------------------------------------------- */

/* The Euclidean norm of n tensors of counts[i] elements together, in double. The sum has a fixed
 * tree. dtypes[i] is "F32" or "BF16"; dtypes NULL: all F32. If any element is not finite *out_norm
 * is infinity. out_nonfinite (their number) may be NULL. */
NIBBLE_API nibble_status nibble_global_norm(const void* const* tensors, const int64_t* counts,
                                            const char* const* dtypes, int64_t n, double* out_norm,
                                            int64_t* out_nonfinite) NIBBLE_NOEXCEPT;

/* sum[i] += x[i] * scale for count elements, fused, in float: gradient accumulation. dtype of x:
 * "F32" or "BF16"; scale: a finite float. */
NIBBLE_API nibble_status nibble_accumulate(float* sum, const void* x, const char* dtype,
                                           int64_t count, double scale) NIBBLE_NOEXCEPT;

typedef struct nibble_quantize_desc {
  uint32_t struct_size;
  uint32_t is_signed; /* 1: the signed map; 0: the unsigned one (values >= 0) */
  const char* format; /* a format with blocks; default "int8" */
  const char* mode;   /* "default", "torchao", "bnb" or "bnb-cuda", as above */
  int64_t block_size; /* default: the format's */
  const char* device; /* "host" (default), "cuda" or "cuda:N": where all the pointers are */
  void* stream;       /* on CUDA: the cudaStream_t; the call does not wait */
} nibble_quantize_desc;

/* Bytes of codes and number of scales for `count` elements. Either out may be NULL. */
NIBBLE_API nibble_status nibble_quantized_size(const nibble_quantize_desc* desc, int64_t count,
                                               uint64_t* out_code_bytes,
                                               int64_t* out_scale_count) NIBBLE_NOEXCEPT;

/* count floats at src to codes and scales, sized as nibble_quantized_size tells. For a block:
 *   scale = max |x| / the map's largest value;  code = nearest to x * (1 / max(scale, 1e-38)). */
NIBBLE_API nibble_status nibble_quantize(const nibble_quantize_desc* desc, const float* src,
                                         int64_t count, void* codes, float* scales) NIBBLE_NOEXCEPT;

/* x = map[code] * scale: count floats to dst. */
NIBBLE_API nibble_status nibble_dequantize(const nibble_quantize_desc* desc, const void* codes,
                                           const float* scales, int64_t count,
                                           float* dst) NIBBLE_NOEXCEPT;

/* Double quantisation (Dettmers et al., "QLoRA", 2023, section 3): n scales of nibble_quantize
 * become codes of their distance from their mean. `scales` is overwritten by these distances.
 * desc: of the codes, by default "int8"; its is_signed must be 1; codes and nested_scales are sized
 * as nibble_quantized_size(desc, n) tells; *offset is the mean. All pointers where desc says.
 * n = 0 touches nothing. */
NIBBLE_API nibble_status nibble_compress_scales(const nibble_quantize_desc* desc, float* scales,
                                                int64_t n, void* codes, float* nested_scales,
                                                float* offset) NIBBLE_NOEXCEPT;
/* scales[i] = map[code] * nested_scale + *offset. */
NIBBLE_API nibble_status nibble_expand_scales(const nibble_quantize_desc* desc, const void* codes,
                                              const float* nested_scales, const float* offset,
                                              int64_t n, float* scales) NIBBLE_NOEXCEPT;

/* sum[i] += x[i] * scale on a device, as nibble_accumulate; enqueued. */
NIBBLE_API nibble_status nibble_device_accumulate(const char* device, void* stream, float* sum,
                                                  const void* x, const char* dtype, int64_t count,
                                                  double scale) NIBBLE_NOEXCEPT;

/* `count` blocks of a GGUF tensor type ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q8_0") at `blocks`
 * to floats at dst, on a device; enqueued. */
NIBBLE_API nibble_status nibble_device_decode_ggml(const char* device, void* stream,
                                                   const char* type, const void* blocks,
                                                   int64_t count, float* dst) NIBBLE_NOEXCEPT;

/* ---- A device's memory --------------------------------------------------------------------- */

/* Memory of a device for a program's own weights, gradients and buffers, from the pool in which
 * optimizers keep their states: under the same limit, listed under `purpose` (UTF-8, for people).
 * kind "device", or "pinned": the host's, which copies from and to the device need not stage and
 * which the limit does not count. Its contents are undefined. OUT_OF_MEMORY: with a table of what
 * is held. */
NIBBLE_API nibble_status nibble_device_allocate(const char* device, const char* kind,
                                                uint64_t bytes, const char* purpose,
                                                void** out) NIBBLE_NOEXCEPT;
/* Gives back what nibble_device_allocate gave; waits for the device. NULL is ignored. */
NIBBLE_API nibble_status nibble_device_free(const char* device, void* memory) NIBBLE_NOEXCEPT;
/* Copies bytes between any two of the host's and the device's addresses, in the stream's order.
 * Does not wait, unless the host's address is not pinned. */
NIBBLE_API nibble_status nibble_device_copy(const char* device, void* stream, void* dst,
                                            const void* src, uint64_t bytes) NIBBLE_NOEXCEPT;

/* What may be held of a device, in bytes; 0: all there is. What is held already stays. */
NIBBLE_API nibble_status nibble_device_set_memory_limit(const char* device,
                                                        uint64_t bytes) NIBBLE_NOEXCEPT;

typedef struct nibble_device_allocation {
  uint32_t struct_size;
  uint32_t is_pinned;  /* 1: memory of the host */
  const char* purpose; /* "exp_avg", "tables of chunks"; valid until the next call on this thread */
  uint64_t bytes;
  int64_t count; /* allocations of that purpose */
} nibble_device_allocation;

/* Entry i = 0, 1, ... of what is held, by purpose, the largest first; INVALID_ARGUMENT behind the
 * last. */
NIBBLE_API nibble_status nibble_device_allocations(const char* device, int64_t i,
                                                   nibble_device_allocation* out) NIBBLE_NOEXCEPT;

/* A format's values by code to out[256] (16 for 4-bit ones); *out_count, which may be NULL: how
 * many. Of desc only format and is_signed count. */
NIBBLE_API nibble_status nibble_format_map(const nibble_quantize_desc* desc, float* out,
                                           int64_t* out_count) NIBBLE_NOEXCEPT;

#if defined(__cplusplus)
} /* extern "C" */
#endif

#endif /* NIBBLE_NIBBLE_H */
