// Which products of a program depend on none of its states, so that a block multiplies them for many frames at once, and what
// has to be done before and after: see Pass.
#include <algorithm>
#include <map>
#include <utility>

#include "plan/compiler.h"

namespace rindle {
namespace {

constexpr int kLast = 1 << 20;                // of what depends on a state: no pass but the last one can do it
constexpr std::size_t kRecords = 64 * 1024;  // bytes of the frames in a pass: they stay in a near cache

// What a step reads and makes, by places. The codes of an affine's products are not among the former.
struct Flow {
    std::vector<std::size_t> reads;
    std::vector<Region> makes;
    Affine* affine = nullptr;
    bool remembers = false;  // its result depends on the frames before

    explicit Flow(Step& step) {
        std::visit([this](auto& work) { read(work); }, step.work);
    }

  private:
    void read(const Place& place) {
        if (!place.constant) reads.push_back(place.offset);
    }
    void make(std::size_t place, std::size_t count) { makes.push_back({place, count * sizeof(std::int16_t)}); }

    void read(Affine& work) {
        affine = &work;
        for (const Affine::Gate& gate : work.gates) make(gate.out, gate.rows);
    }
    void read(Convolve& work) {
        for (const Affine::Product& product : work.affine.products) {
            reads.push_back(product.x);
            remembers |= product.held >= 0;
        }
        for (const Affine::Gate& gate : work.affine.gates) make(gate.out, gate.rows * work.pixels);
    }
    void read(Narrowing& work) {
        read(work.in);
        make(work.out, work.op.size);
        remembers = work.held >= 0;
    }
    void read(Elementwise& work) {
        for (int i = 0; i < work.operands; ++i) read(work.in[i]);
        make(work.out, work.op.size);
    }
    void read(Clip& work) {
        read(work.in);
        make(work.out, work.size);
    }
    void read(TableStep& work) {
        read(work.in);
        make(work.out, work.size);
    }
};

class Passes {
  public:
    explicit Passes(Stage& stage) : stage_(stage) {
        for (const Memory& memory : stage.state) of_place_[memory.offset] = kLast;
        for (Step& step : stage.steps) {
            const Flow& flow = flows_.emplace_back(step);
            of_step_.push_back(earliest(flow));
            for (const Region& made : flow.makes) {
                of_place_[made.offset] = of_step_.back();
                made_[made.offset] = made;
            }
            if (!flow.affine) continue;
            for (Affine::Product& product : flow.affine->products) {
                product.known = product.held < 0 && of_place_[product.x] < kLast;
                if (product.known) last_ = std::max(last_, of_place_[product.x] + 1);
            }
        }
        postpone();
        stage.record = 0;
        stage.passes.assign(static_cast<std::size_t>(last_) + 1, {});
        for (std::size_t i = 0; i < flows_.size(); ++i) pass(of_step_[i]).steps.push_back(i);
        keep();
        for (std::size_t i = 0; i < flows_.size(); ++i)
            if (flows_[i].affine) multiply(i);
    }

  private:
    Pass& pass(int index) { return stage_.passes[static_cast<std::size_t>(index)]; }
    std::size_t reserve(std::size_t bytes) { return std::exchange(stage_.record, stage_.record + aligned(bytes)); }

    // The first pass that can do it: products are done after the pass that makes their codes.
    int earliest(const Flow& flow) {
        int pass = flow.remembers ? kLast : 0;
        for (std::size_t place : flow.reads) pass = std::max(pass, of_place_[place]);
        if (flow.affine)
            for (const Affine::Product& product : flow.affine->products)
                pass = product.held >= 0 ? kLast : std::max(pass, std::min(of_place_[product.x] + 1, kLast));
        return pass;
    }

    // What no known product waits for is left to the last pass, or else its results had to be kept till then.
    void postpone() {
        std::map<std::size_t, bool> awaited;
        for (const Flow& flow : flows_)
            if (flow.affine)
                for (const Affine::Product& product : flow.affine->products) awaited[product.x] |= product.known;
        for (std::size_t i = flows_.size(); i-- > 0;) {
            const Flow& flow = flows_[i];
            const auto& made = flow.makes;
            if (of_step_[i] < last_ && std::any_of(made.begin(), made.end(), [&](const Region& one) { return awaited[one.offset]; })) {
                for (std::size_t place : flow.reads) awaited[place] = true;
                if (flow.affine)
                    for (const Affine::Product& product : flow.affine->products) awaited[product.x] = true;
                continue;
            }
            of_step_[i] = last_;
            for (const Region& one : made) of_place_[one.offset] = last_;
        }
    }

    // Where the record has the value of this place, which is saved by the pass that makes it.
    std::size_t save(std::size_t place, std::size_t bytes) {
        const auto [found, is_new] = records_.try_emplace(place, 0);
        if (is_new) {
            found->second = reserve(bytes);
            pass(of_place_[place]).save.push_back({{place, bytes}, found->second});
        }
        return found->second;
    }

    // What a pass reads and one before has made.
    void keep(std::size_t place, int reader) {
        const auto made = made_.find(place);
        if (made == made_.end() || of_place_[place] >= reader) return;
        const std::size_t record = save(place, made->second.bytes);
        std::vector<Kept>& load = pass(reader).load;
        if (std::none_of(load.begin(), load.end(), [&](const Kept& kept) { return kept.record == record; }))
            load.push_back({made->second, record});
    }

    void keep() {
        for (std::size_t i = 0; i < flows_.size(); ++i) {
            for (std::size_t place : flows_[i].reads) keep(place, of_step_[i]);
            if (!flows_[i].affine) continue;
            for (const Affine::Product& product : flows_[i].affine->products)
                if (!product.known) keep(product.x, of_step_[i]);
        }
        keep(stage_.out, last_);
        for (const Copy& copy : stage_.copies) keep(copy.from, last_);
    }

    // Known products, whose sums the pass of their affine loads.
    void multiply(std::size_t step) {
        const std::vector<Affine::Product>& products = flows_[step].affine->products;
        for (std::size_t i = 0; i < products.size(); ++i) {
            const Affine::Product& product = products[i];
            if (!product.known) continue;
            const auto rows = static_cast<std::size_t>(product.matrix.rows), columns = static_cast<std::size_t>(product.matrix.columns);
            const std::size_t code = save(product.x, columns * sizeof(std::int16_t));
            const std::size_t sums = reserve(product.matrix.wide ? padded_bytes<std::int64_t>(rows) : padded_bytes<std::int32_t>(rows));
            pass(of_place_[product.x]).products.push_back({step, i, code, sums});
            pass(of_step_[step]).load.push_back({{product.accumulators, product.matrix.sums_bytes()}, sums});
        }
    }

    Stage& stage_;
    std::vector<Flow> flows_;
    std::map<std::size_t, int> of_place_;
    std::map<std::size_t, Region> made_;
    std::map<std::size_t, std::size_t> records_;
    std::vector<int> of_step_;
    int last_ = 0;
};

}  // namespace

void plan_passes(Model& model) {
    model.records = model.vectors_scratch = 0;
    for (Stage& stage : model.stages) {
        Passes{stage};
        // Where nothing is kept, frames pass one by one, and as many as there are.
        stage.most_frames = stage.record == 0 ? kMostFrames : std::clamp(kRecords / stage.record / kVectors * kVectors, kVectors, kMostFrames);
        model.records = std::max(model.records, stage.most_frames * stage.record);
        for (const Pass& pass : stage.passes)
            for (const Pass::Known& known : pass.products) {
                const auto columns = std::get<Affine>(stage.steps[known.step].work).products[known.product].matrix.columns;
                model.vectors_scratch = std::max(model.vectors_scratch, aligned(vectors_scratch_bytes(static_cast<std::size_t>(columns))));
            }
    }
}

}  // namespace rindle
