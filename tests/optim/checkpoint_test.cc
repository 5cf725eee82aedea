// SPDX-License-Identifier: Apache-2.0
// Optimizer checkpoints: into other formats and blocks, in another order, and what cannot be
// loaded. The same format is in same_bits_test.cc.
#include "formats/checkpoint.h"

#include <cmath>
#include <fstream>

#include "support/format_bounds.h"
#include "support/misuse.h"
#include "support/paths.h"
#include "support/tensor_case.h"

namespace nibble::test {
namespace {

constexpr std::int64_t kRows = 13;
constexpr std::int64_t kColumns = 77;
constexpr std::int64_t kCount = kRows * kColumns;

std::vector<float> exported(const api::Optimizer& opt, std::int64_t param, const char* state) {
  std::vector<float> out(static_cast<std::size_t>(opt.info(param).count));
  api::check(nibble_optimizer_export_state(opt.get(), param, state, out.data()));
  return out;
}

struct Layout {
  std::string format = "int8", rule = "adamw", weights = "fp32";
  std::int64_t block = 0, first = 300;
  std::vector<std::string> order = {"first", "second"};
};

// Two parameters, three steps.
class Checkpoints : public ::testing::Test {
 protected:
  struct Run {
    explicit Run(const Layout& layout) {
      nibble_optimizer_desc desc = adamw_desc(layout.format.c_str());
      desc.rule = layout.rule.c_str(), desc.weight_format = layout.weights.c_str();
      desc.block_size = layout.block, desc.learning_rate = desc.weight_decay = 0;
      opt.emplace(desc);
      for (const std::string& name : layout.order) {
        const std::vector<std::int64_t> shape =
            name == "first" ? std::vector{layout.first} : std::vector{kRows, kColumns};
        opt->add(name, shape, weights.data());
      }
    }
    void step(int times) {
      for (int t = 0; t < times; ++t) {
        const auto grad = make_input("normal", kCount, static_cast<std::uint64_t>(t + 1));
        std::int64_t n = 0;
        api::check(nibble_optimizer_param_count(opt->get(), &n));
        opt->step(std::vector<const void*>(static_cast<std::size_t>(n), grad.data()));
      }
    }
    std::vector<float> weights = std::vector<float>(kCount, 1.0F);
    std::optional<api::Optimizer> opt;
  };

  std::string saved(const Layout& layout = {}) {
    Run run(layout);
    run.step(3);
    const std::string path = (directory_.path() / std::to_string(++saves_)).string();
    run.opt->save(path);
    return path;
  }

  // One error with all the parts; the optimizer is as before.
  static void refused(Run& run, const std::string& path, nibble_status status,
                      const std::vector<std::string>& parts) {
    const Snapshot before = snapshot(run.opt->get());
    const nibble_status got = nibble_optimizer_load(run.opt->get(), path.c_str());
    for (const std::string& part : parts) {
      expect_failure(got, status, part);
    }
    EXPECT_TRUE(snapshot(run.opt->get()) == before) << parts.front();
  }
  static void refused(const Layout& layout, const std::string& path, nibble_status status,
                      const std::vector<std::string>& parts) {
    Run run(layout);
    run.step(1);
    refused(run, path, status, parts);
  }

  TemporaryDirectory directory_;
  int saves_ = 0;
};

TEST_F(Checkpoints, AnotherFormatOrBlockIsWithinItsErrorBound) {
  struct Kind {
    std::string format;
    std::int64_t block;
  };
  std::vector<Kind> kinds = {{"int8", 64}, {"int8", 2048}, {"int4", 32}};
  for (const std::string& format : state_format_names()) {
    kinds.push_back({format, 0});
  }
  for (const Kind& from : kinds) {
    Layout layout;
    layout.format = from.format, layout.block = from.block;
    Run source(layout);
    source.step(3);
    const std::string path = saved(layout);
    for (const Kind& to : kinds) {
      layout.format = to.format, layout.block = to.block;
      Run run(layout);
      run.step(1);
      api::check(nibble_optimizer_load(run.opt->get(), path.c_str()));
      EXPECT_EQ(run.opt->step_count(), 3);
      const bool same = from.format == to.format && from.block == to.block;
      for (const char* state : {"exp_avg", "exp_avg_sq"}) {
        for (const std::int64_t param : {0, 1}) {
          const bool is_signed = state == std::string("exp_avg");
          const auto want = exported(*source.opt, param, state);
          const auto got = exported(*run.opt, param, state);
          const auto block = static_cast<std::size_t>(run.opt->info(param).block_size);
          const bool rank1 = to.format == "int4_rank1" && !is_signed && param == 1;
          double moved = 0;
          for (std::size_t i = 0; i < want.size(); ++i) {
            const double x = want[i];
            const double top = rank1 ? rank1_top(want, i, kColumns) : block_top(want, i, block);
            const double allowed = same ? 0 : format_bound(to.format, is_signed, x, top);
            ASSERT_LE(std::abs(got[i] - x), allowed)
                << from.format << " " << from.block << " to " << to.format << " " << to.block << " "
                << state << " " << i;
            moved = std::max(moved, std::abs(x));
          }
          EXPECT_GT(moved, 0) << "an empty state says nothing";
        }
      }
      run.step(1);
    }
  }
}

TEST_F(Checkpoints, ParametersAreFoundByName) {
  const std::string path = saved();
  Layout layout;
  Run source(layout);
  source.step(3);
  layout.order = {"second", "first"};
  Run run(layout);
  run.opt->load(path);
  for (const char* state : {"exp_avg", "exp_avg_sq"}) {
    EXPECT_EQ(exported(*run.opt, 0, state), exported(*source.opt, 1, state));
    EXPECT_EQ(exported(*run.opt, 1, state), exported(*source.opt, 0, state));
  }
}

// bf16 weights of 2 whose optimizer was made elsewhere, and never bound.
class Unbound {
 public:
  explicit Unbound(const char* weights) : opt(desc(weights)) {
    auto param = api::make<nibble_param_desc>();
    const std::int64_t shape[] = {kCount};
    param.name = "w", param.n_dims = 1, param.shape = shape;
    opt.add_param(param);
  }
  // The weights after a bind, where that is still to be done, and a step.
  std::vector<math::bf16> step(bool bind = true) {
    if (bind) {
      opt.bind(0, weights.data());
    }
    opt.step({grads.data()});
    return weights;
  }
  bool is_unset() const { return opt.state(0, 2).is_unset != 0; }
  static std::vector<math::bf16> filled(float x) {
    return std::vector<math::bf16>(static_cast<std::size_t>(kCount), math::float_to_bf16(x));
  }

  api::Optimizer opt;
  std::vector<math::bf16> weights = filled(2.0F);

 private:
  static nibble_optimizer_desc desc(const char* weights) {
    nibble_optimizer_desc out = adamw_desc("fp32");
    out.weight_format = weights, out.learning_rate = 0.125;
    return out;
  }
  std::vector<math::bf16> grads = filled(1.0F);
};

TEST_F(Checkpoints, SavedBeforeTheFirstBindHoldNoMaster) {
  for (const char* weights : {"bf16_master", "bf16_correction16", "bf16_correction8"}) {
    Unbound saved(weights), plain(weights), loaded(weights), used(weights), arrays(weights);
    EXPECT_TRUE(saved.is_unset());
    const std::string path = (directory_.path() / weights).string();
    saved.opt.save(path);
    const auto expected = plain.step();
    EXPECT_FALSE(plain.is_unset());
    EXPECT_LT(math::bf16_to_float(expected[0]), 1.9F);

    loaded.opt.load(path);
    EXPECT_TRUE(loaded.is_unset());
    EXPECT_EQ(loaded.step(), expected) << weights;

    used.step();  // what it holds is of other weights
    used.opt.load(path);
    std::ranges::copy(Unbound::filled(2.0F), used.weights.begin());
    EXPECT_EQ(used.step(false), expected) << weights;

    loaded.opt.save(path + " set");
    arrays.opt.load(path + " set");
    EXPECT_FALSE(arrays.is_unset());
    const auto second = loaded.step(false);
    arrays.weights = expected;
    EXPECT_EQ(arrays.step(), second) << weights;
  }
}

TEST_F(Checkpoints, WhatDoesNotFitIsRefusedByName) {
  const std::string path = saved();
  const auto mismatch = [&](const Layout& layout, const std::vector<std::string>& parts) {
    refused(layout, path, NIBBLE_INVALID_ARGUMENT, parts);
  };
  mismatch({.order = {"first"}}, {path, "\"second\" was saved, and the optimizer has none"});
  mismatch({.order = {"first", "second", "third"}},
           {path, "parameter \"third\": it is not in the checkpoint"});
  mismatch({.rule = "adam"}, {path, "\"first\": rule \"adamw\" was saved, this one has \"adam\""});
  mismatch({.first = 301}, {path, "\"first\": 300 elements were saved, this one has 301"});
  for (const char* weights : {"bf16_master", "bf16_correction16", "bf16_correction8"}) {
    mismatch({.weights = weights},
             {path, "\"first\": weights \"fp32\" were saved, this one has \"" +
                        std::string(weights) + "\""});
    const std::string other = saved({.weights = weights});
    refused(Layout{}, other, NIBBLE_INVALID_ARGUMENT,
            {other, "weights \"" + std::string(weights) + "\" were saved"});
  }
  const std::string rank1 = saved({.format = "int4_rank1"});
  Run transposed(Layout{.order = {"first"}});
  transposed.opt->add("second", {kColumns, kRows}, transposed.weights.data());
  refused(transposed, rank1, NIBBLE_INVALID_ARGUMENT,
          {rank1, "\"second\": a matrix with 77 columns was saved, this one has 13"});
  const std::string factored = saved({.rule = "adafactor"});
  Run vector(Layout{.rule = "adafactor", .order = {"first"}});
  vector.opt->add("second", {kCount}, vector.weights.data());
  refused(vector, factored, NIBBLE_INVALID_ARGUMENT, {factored, "\"second\"", "\"exp_avg_sq\""});
}

// A state that has no place in the loading optimizer is not dropped.
TEST_F(Checkpoints, NoSavedStateIsLost) {
  const auto with = [&](double momentum) {
    auto desc = api::make<nibble_optimizer_desc>();
    const nibble_hyper hypers[] = {{"momentum", momentum}};
    desc.rule = "sgd", desc.hypers = hypers, desc.n_hypers = 1;
    return OneTensor(desc, std::vector<float>(300, 1.0F));
  };
  const auto grad = make_input("normal", 300);
  OneTensor heavy = with(0.9);
  OneTensor light = with(0);
  heavy.step(grad.data());
  light.step(grad.data());
  const std::string path = (directory_.path() / "heavy").string();
  heavy.optimizer.save(path);
  expect_failure(nibble_optimizer_load(light.optimizer.get(), path.c_str()),
                 NIBBLE_INVALID_ARGUMENT, "state \"momentum_buffer\" was saved");
  light.optimizer.save(path + " light");
  expect_failure(nibble_optimizer_load(heavy.optimizer.get(), (path + " light").c_str()),
                 NIBBLE_INVALID_ARGUMENT, "state \"momentum_buffer\" was not saved");
}

TEST_F(Checkpoints, EveryFlippedByteIsFound) {
  const std::string path = saved({.format = "int4"});
  Run run(Layout{});
  run.step(1);
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    const auto size = static_cast<std::streamoff>(entry.file_size());
    for (std::streamoff at = 0; at < size; at += at < 400 ? 1 : 37) {
      char byte = 0;
      file.seekg(at).get(byte);
      file.seekp(at).put(static_cast<char>(byte ^ 0x15)).flush();
      const Snapshot before = snapshot(run.opt->get());
      const nibble_status status = nibble_optimizer_load(run.opt->get(), path.c_str());
      EXPECT_TRUE(status == NIBBLE_CORRUPT || status == NIBBLE_UNSUPPORTED)
          << entry.path() << " " << at << " " << nibble_status_name(status);
      EXPECT_NE(std::string(nibble_last_error()).find(path), std::string::npos)
          << nibble_last_error();
      ASSERT_TRUE(snapshot(run.opt->get()) == before);
      file.seekp(at).put(byte).flush();
    }
  }
  EXPECT_EQ(nibble_optimizer_load(run.opt->get(), path.c_str()), NIBBLE_OK) << nibble_last_error();
}

TEST_F(Checkpoints, TruncatedMissingAndForeign) {
  const std::string path = saved();
  for (const char* name : {"optimizer.safetensors", "manifest.json"}) {
    const auto file = std::filesystem::path(path) / name;
    const auto kept = file.string() + ".kept";
    std::filesystem::copy_file(file, kept);
    for (const std::uintmax_t left :
         {std::uintmax_t{0}, std::uintmax_t{7}, std::filesystem::file_size(file) - 1}) {
      std::filesystem::resize_file(file, left);
      refused(Layout{}, path, NIBBLE_CORRUPT, {file.string()});
      std::filesystem::copy_file(kept, file, std::filesystem::copy_options::overwrite_existing);
    }
    std::filesystem::remove(file);
    refused(Layout{}, path, NIBBLE_CORRUPT, {path, name});
    std::filesystem::rename(kept, file);
  }
  const std::string none = (directory_.path() / "none").string();
  refused(Layout{}, none, NIBBLE_IO, {none});
  std::filesystem::create_directory(none);
  refused(Layout{}, none, NIBBLE_CORRUPT, {none, "not a nibble checkpoint"});
  const std::string file = (directory_.path() / "file").string();
  std::ofstream(file) << "{}";
  refused(Layout{}, file, NIBBLE_IO, {file});
}

TEST_F(Checkpoints, NewerVersionsAndOtherKinds) {
  const std::string path = saved();
  const auto manifest = std::filesystem::path(path) / "manifest.json";
  std::ifstream in(manifest);
  std::string text((std::istreambuf_iterator<char>(in)), {});
  const std::string version = "\"version\": 1";
  ASSERT_NE(text.find(version), std::string::npos);
  std::ofstream(manifest) << text.replace(text.find(version), version.size(), "\"version\": 2");
  refused(Layout{}, path, NIBBLE_UNSUPPORTED, {manifest.string(), "version 2 is newer"});

  struct Case {
    formats::Json extra;
    nibble_status status;
    const char* message;
  };
  const formats::Json none = formats::Json::object();
  const Case cases[] = {
      {{{"kind", "adapter"}}, NIBBLE_INVALID_ARGUMENT, "not the checkpoint of an optimizer"},
      {none, NIBBLE_INVALID_ARGUMENT, "not the checkpoint of an optimizer"},
      {{{"kind", "optimizer"}, {"version", 2}}, NIBBLE_UNSUPPORTED, "states of version 2"},
      {{{"kind", "optimizer"}, {"version", "1"}}, NIBBLE_CORRUPT, "version is string"},
      {{{"kind", "optimizer"}, {"version", 1.5}}, NIBBLE_CORRUPT, "version is 1.5"},
      {{{"kind", "optimizer"}, {"version", -1}}, NIBBLE_CORRUPT, "version is -1"},
      {{{"kind", "optimizer"}, {"version", (std::int64_t{1} << 32) + 1}},
       NIBBLE_UNSUPPORTED,
       "states of version 4294967297"},
      {{{"kind", "optimizer"}, {"version", 1}}, NIBBLE_CORRUPT, "params"},
      {{{"kind", "optimizer"}, {"version", 1}, {"params", {{"first", none}}}},
       NIBBLE_CORRUPT,
       "rule"}};
  for (const Case& c : cases) {
    const auto directory = directory_.path() / ("written" + std::to_string(++saves_));
    formats::CheckpointWriter writer(directory);
    writer.add_component("optimizer", {});
    writer.commit(c.extra);
    refused(Layout{}, directory.string(), c.status, {directory.string(), c.message});
  }
  for (const std::int64_t step : {std::int64_t{-1}, INT64_MAX}) {
    const auto directory = directory_.path() / ("steps" + std::to_string(++saves_));
    formats::CheckpointWriter writer(directory);
    writer.add_component("optimizer", {});
    writer.commit({{"kind", "optimizer"}, {"version", 1}, {"params", none}, {"step", step}});
    Run run(Layout{.order = {}});
    refused(run, directory.string(), NIBBLE_CORRUPT, {directory.string(), "step is "});
  }
}

// Whatever value of the manifest is of another type, out of range or no integer: a line that names
// it, and nothing changed. The rest is sound, checksums too.
TEST_F(Checkpoints, EveryManifestValueIsChecked) {
  using formats::Json;
  const std::string path = saved({.format = "int4_rank1"});
  const formats::Checkpoint sound{os::Path(path)};
  const formats::SafetensorsFile& file = sound.component("optimizer");
  struct Case {
    const char* pointer;
    Json value;
    const char* message;
    nibble_status status = NIBBLE_CORRUPT;
  };
  const Case cases[] = {
      {"/step", 3.9, "step is 3.9"},
      {"/step", true, "step is boolean"},
      {"/step", (std::uint64_t{1} << 63) + 5, "step is 9223372036854775813"},
      {"/step", (std::int64_t{1} << 53) + 1, "step is 9007199254740993"},
      {"/params", Json::array({1}), "params is array"},
      {"/params/first", 5, "first is 5"},
      {"/params/first/rule", 3, "rule is 3"},
      {"/params/first/count", 300.5, "count is 300.5"},
      {"/params/first/count", "300", "count is string"},
      {"/params/first/block", -5, "block is -5"},
      {"/params/first/block", 64.7, "block is 64.7"},
      {"/params/first/block", 0, "block is 0"},
      {"/params/first/block", std::int64_t{1} << 62, "block is 4611686018427387904"},
      {"/params/first/weights", nullptr, "weights is null"},
      {"/params/first/weights_unset", 0, "weights_unset is 0"},
      {"/params/first/states", Json::array(), "states is array"},
      {"/params/first/states/exp_avg", "int4", "exp_avg is string"},
      {"/params/first/states/exp_avg/format", 5, "format is 5"},
      {"/params/first/states/exp_avg/format", "nf4", "\"nf4\"", NIBBLE_INVALID_ARGUMENT},
      {"/params/first/states/exp_avg/signed", false, "wrong sign"},
      {"/params/second/shape", "abc", "shape is string"},
      {"/params/second/shape", Json::array({13, 77.5}), "shape is 77.5"},
      {"/params/second/shape", Json::array({-13, 77}), "shape is -13"},
      {"/params/second/shape", Json::array(), "matrix with 1 columns", NIBBLE_INVALID_ARGUMENT},
  };
  for (const Case& c : cases) {
    Json extra = sound.extra();
    extra[Json::json_pointer(c.pointer)] = c.value;
    const auto directory = directory_.path() / ("edited" + std::to_string(++saves_));
    formats::CheckpointWriter writer(directory);
    writer.add_component("optimizer", file.tensors());
    writer.commit(extra);
    refused(Layout{}, directory.string(), c.status, {directory.string(), c.message});
  }
}

TEST_F(Checkpoints, SavingReplacesNothing) {
  Run run(Layout{});
  run.step(1);
  const Snapshot before = snapshot(run.opt->get());
  const auto fails = [&](const std::string& path, const std::string& message) {
    const nibble_status status = nibble_optimizer_save(run.opt->get(), path.c_str());
    expect_failure(status, NIBBLE_IO, path);
    expect_failure(status, NIBBLE_IO, message);
    EXPECT_TRUE(snapshot(run.opt->get()) == before);
  };
  const std::string path = saved();
  const auto time = std::filesystem::last_write_time(path);
  fails(path, "exists");
  EXPECT_EQ(std::filesystem::last_write_time(path), time);
  const std::string file = (directory_.path() / "file").string();
  std::ofstream(file) << "mine";
  fails(file, "exists");
  fails(file + "/below", "Not a directory");
  fails((directory_.path() / "no" / "such").string(), "No such file");
  fails("/proc/nibble", "cannot create directory");
}

}  // namespace
}  // namespace nibble::test
