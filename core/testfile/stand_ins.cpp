#include "testfile/stand_ins.h"

#include <stdexcept>
#include <utility>

#include "millrace/verdict.h"

#include "testfile/compare.h"

namespace millrace::host {

void Recording::add(const BatchBase& batch) {
  const std::size_t count = batch.type().count(batch);
  const std::lock_guard lock(mutex_);
  for (std::size_t i = 0; i < count; ++i) {
    if (count_++ < kMost) batch.type().describe(batch, i, items_.emplace_back());
  }
}

std::vector<std::string> Recording::items() const {
  const std::lock_guard lock(mutex_);
  return items_;
}

std::uint64_t Recording::count() const {
  const std::lock_guard lock(mutex_);
  return count_;
}

namespace {

void give(const ItemList& list, Downstream& out, const std::stop_token& stop) {
  for (const BoxedBatch& batch : list.batches) {
    if (stop.stop_requested()) return;
    const BoxedBatch copy = batch->type().clone(*batch);
    out.push(*copy);
  }
}

class ItemsSource final : public Stage {
 public:
  explicit ItemsSource(std::shared_ptr<const ItemList> items) : items_(std::move(items)) {}
  void run_erased(Downstream& out, const std::stop_token& stop) override {
    give(*items_, out, stop);
  }

 private:
  std::shared_ptr<const ItemList> items_;
};

class Recorder final : public Stage {
 public:
  explicit Recorder(std::shared_ptr<Recording> recording) : recording_(std::move(recording)) {}
  void process_erased(BatchBase& in, Downstream& /*out*/) override {
    if (recording_) recording_->add(in);
  }

 private:
  std::shared_ptr<Recording> recording_;
};

class Stub final : public Stage {
 public:
  explicit Stub(std::shared_ptr<StubBehaviour> behaviour) : behaviour_(std::move(behaviour)) {}

  void process_erased(BatchBase& in, Downstream& out) override {
    StubBehaviour& to_do = *behaviour_;
    if (in.type().count(in) == 0) return;
    if (!to_do.error.empty()) throw std::runtime_error(to_do.error);
    fail_in_passing();
    reject(in);
    if (to_do.kind == StubBehaviour::Kind::pass) {
      const BoxedBatch copy = in.type().clone(in);
      out.push(*copy);
    } else if (to_do.kind == StubBehaviour::Kind::label) {
      label(static_cast<Batch<Session>&>(in), out);
    }
  }

  void flush_erased(Downstream& out) override {
    if (behaviour_->kind != StubBehaviour::Kind::give || behaviour_->given.exchange(true)) return;
    give(*behaviour_->items, out, {});
  }

 private:
  void fail_in_passing() {
    std::uint32_t left = behaviour_->fail;
    while (left > 0) {
      if (behaviour_->fail.compare_exchange_weak(left, left - 1)) {
        throw Transient("the test's stub fails for a while");
      }
    }
  }

  void reject(const BatchBase& in) const {
    if (!behaviour_->reject) return;
    std::vector<std::size_t> positions;
    for (std::size_t i = 0; i < in.type().count(in); ++i) {
      if (matches(*behaviour_->reject, described(in, i))) positions.push_back(i);
    }
    if (!positions.empty()) throw Rejected("the test's stub rejects them", std::move(positions));
  }

  void label(Batch<Session>& in, Downstream& out) const {
    static const Label kUnknown;
    Batch<Verdict> verdicts;
    verdicts.watermark = in.watermark;
    verdicts.storage_bytes = in.storage_bytes;
    verdicts.storage = detail::join_storage(in.storage, behaviour_);
    for (std::size_t i = 0; i < in.items.size(); ++i) {
      const Label* chosen = &kUnknown;
      for (const StubBehaviour::Rule& rule : behaviour_->rules) {
        if (!rule.when.empty() && !matches({{}, rule.when}, described(in, i))) continue;
        chosen = &rule.label;
        break;
      }
      Verdict& verdict = verdicts.items.emplace_back();
      verdict.session = in.items[i].info;
      verdict.label = chosen->label;
      verdict.model = chosen->model;
      verdict.model_version = chosen->model_version;
      verdict.label_index = chosen->label_index;
      verdict.confidence = static_cast<float>(chosen->confidence);
    }
    out.push(verdicts);
  }

  std::shared_ptr<StubBehaviour> behaviour_;
};

StageDescriptor describe(std::string name, StageKind kind, const ItemType* in, const ItemType* out,
                         StageDescriptor::Create create) {
  StageDescriptor stage;
  stage.name = std::move(name);
  stage.help = "Stands in for a stage in a test";
  stage.kind = kind;
  stage.input = in;
  stage.output = out;
  stage.new_options = [] { return std::make_shared<NoOptions>(); };
  stage.create = std::move(create);
  return stage;
}

}  // namespace

StageDescriptor items_source(std::string name, std::shared_ptr<const ItemList> items) {
  const ItemType* type = items->type;
  return describe(std::move(name), StageKind::source, nullptr, type,
                  [items = std::move(items)](const void*) -> std::unique_ptr<Stage> {
                    return std::make_unique<ItemsSource>(items);
                  });
}

StageDescriptor recorder(std::string name, const ItemType& type,
                         std::shared_ptr<Recording> recording) {
  return describe(std::move(name), StageKind::sink, &type, nullptr,
                  [recording = std::move(recording)](const void*) -> std::unique_ptr<Stage> {
                    return std::make_unique<Recorder>(recording);
                  });
}

StageDescriptor stub(std::string name, const ItemType& in, const ItemType* out,
                     std::shared_ptr<StubBehaviour> behaviour) {
  return describe(std::move(name), out == nullptr ? StageKind::sink : StageKind::transform, &in,
                  out, [behaviour = std::move(behaviour)](const void*) -> std::unique_ptr<Stage> {
                    return std::make_unique<Stub>(behaviour);
                  });
}

}  // namespace millrace::host
