/* SPDX-License-Identifier: Apache-2.0
 * The smallest use of libnibble from C: a perceptron with one hidden layer learns which of two
 * spirals a point lies on, with int8 AdamW (states of 2 bytes a weight instead of 8). */
#include <math.h>
#include <nibble/nibble.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { kHidden = 256, kPoints = 400, kSteps = 1500, kIn = 2, kParams = 3 };

static float w1[kIn * kHidden], b1[kHidden], w2[kHidden]; /* weights */
static float g1[kIn * kHidden], c1[kHidden], g2[kHidden]; /* gradients */
static float point[kPoints][kIn], label[kPoints];

static uint32_t random_bits = 1;
static float random_float(void) { /* in [-1, 1) */
  random_bits = random_bits * 1664525U + 1013904223U;
  return (float)(random_bits >> 8) / 8388608.0F - 1.0F;
}

static void make_points(void) {
  int i = 0;
  for (i = 0; i < kPoints; ++i) {
    const float turn = (float)(i / 2) / (kPoints / 2); /* of the way outwards */
    const float angle = 6.0F * turn + (i % 2 == 0 ? 0.0F : 3.14159265F);
    point[i][0] = (0.2F + turn) * cosf(angle) + 0.02F * random_float();
    point[i][1] = (0.2F + turn) * sinf(angle) + 0.02F * random_float();
    label[i] = i % 2 == 0 ? 1.0F : -1.0F;
  }
}

/* Forward and backward for all points; returns how many are on the right side. */
static int learn(void) {
  static float hidden[kHidden];
  int right = 0;
  int i = 0;
  int h = 0;
  for (h = 0; h < kHidden; ++h) {
    g1[2 * h] = g1[2 * h + 1] = c1[h] = g2[h] = 0.0F;
  }
  for (i = 0; i < kPoints; ++i) {
    float out = 0.0F;
    float error = 0.0F;
    for (h = 0; h < kHidden; ++h) {
      const float sum = w1[2 * h] * point[i][0] + w1[2 * h + 1] * point[i][1] + b1[h];
      hidden[h] = sum > 0.0F ? sum : 0.0F;
      out += w2[h] * hidden[h];
    }
    right += out * label[i] > 0.0F;
    error = -label[i] / (1.0F + expf(out * label[i])) / kPoints; /* logistic loss */
    for (h = 0; h < kHidden; ++h) {
      const float back = hidden[h] > 0.0F ? error * w2[h] : 0.0F;
      g2[h] += error * hidden[h];
      c1[h] += back;
      g1[2 * h] += back * point[i][0];
      g1[2 * h + 1] += back * point[i][1];
    }
  }
  return right;
}

static void check(nibble_status status) {
  if (status != NIBBLE_OK) {
    fprintf(stderr, "%s: %s\n", nibble_status_name(status), nibble_last_error());
    exit(EXIT_FAILURE);
  }
}

int main(void) {
  const char* names[kParams] = {"w1", "b1", "w2"};
  const int64_t shapes[kParams][2] = {{kHidden, kIn}, {kHidden, 1}, {kHidden, 1}};
  float* weights[kParams] = {w1, b1, w2};
  const void* grads[kParams] = {g1, c1, g2};
  nibble_optimizer* opt = NULL;
  nibble_optimizer_desc optimizer = {0};
  nibble_step_desc step = {0};
  int right = 0;
  int i = 0;

  optimizer.struct_size = sizeof optimizer;
  optimizer.state_format = "int8";
  optimizer.min_quantized_elements = 1; /* these parameters are small */
  optimizer.learning_rate = 0.01;
  check(nibble_optimizer_create(&opt, &optimizer));
  for (i = 0; i < kParams; ++i) {
    nibble_param_desc param = {0};
    param.struct_size = sizeof param;
    param.name = names[i];
    param.n_dims = 2;
    param.shape = shapes[i];
    check(nibble_optimizer_add_param(opt, &param, NULL, NULL));
    check(nibble_optimizer_bind(opt, i, weights[i]));
  }
  make_points();
  for (i = 0; i < kHidden; ++i) {
    w1[2 * i] = 2.0F * random_float();
    w1[2 * i + 1] = 2.0F * random_float();
    b1[i] = random_float();
    w2[i] = 0.1F * random_float();
  }
  step.struct_size = sizeof step;
  step.grads = grads;
  step.n_grads = kParams;
  for (i = 0; i < kSteps; ++i) {
    right = learn();
    check(nibble_optimizer_step(opt, &step));
  }
  nibble_optimizer_destroy(opt);
  printf("nibble %s, %s: %d of %d points right after %d steps\n", nibble_version_string(),
         nibble_isa_name(), right, kPoints, kSteps);
  return right >= kPoints * 98 / 100 ? EXIT_SUCCESS : EXIT_FAILURE;
}
