#include "calibration_sampling.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

namespace plait {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int least_sweeps = 3;
constexpr int most_times = 1000;

double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double trimmed_mean(std::vector<double> values) {
  std::ranges::sort(values);
  values.resize(values.size() - values.size() / 10);
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace

double Sampler::slowest(double mine, char const* what) const {
  std::vector<double> const all = job_.gather(mine, what);
  return *std::ranges::max_element(all);
}

std::vector<double> Sampler::own_means(std::vector<Sample> const& samples, double seconds) {
  std::vector<int> times;
  for (Sample const& sample : samples) {
    (void)sample.timed(1);  // memory is touched, connections are made
    transport_.barrier("the start of a sample");
    double const once = slowest(sample.timed(1), "a first sample");
    times.push_back(std::clamp(static_cast<int>(std::ceil(sample.least_seconds / once)), 1, most_times));
  }
  std::vector<std::vector<double>> found(samples.size());
  auto const start = Clock::now();
  for (int sweep = 0;; ++sweep) {
    int const enough = sweep >= least_sweeps && since(start) >= seconds ? 1 : 0;
    if (job_.gather(enough, "the end of sampling").front() == 1) break;
    for (std::size_t i = 0; i < samples.size(); ++i) {
      transport_.barrier("the start of a sample");
      found[i].push_back(samples[i].timed(times[i]) / times[i]);
    }
  }
  std::vector<double> result;
  for (std::vector<double>& mine : found) result.push_back(trimmed_mean(std::move(mine)));
  return result;
}

std::vector<double> Sampler::means(std::vector<Sample> const& samples, double seconds) {
  std::vector<double> result = own_means(samples, seconds);
  for (double& mean : result) mean = slowest(mean, "the means of the samples");
  return result;
}

std::vector<double> Sampler::first_means(std::vector<Sample> const& samples, double seconds) {
  std::vector<double> result = own_means(samples, seconds);
  for (double& mean : result) mean = job_.gather(mean, "the means of the samples").front();
  return result;
}

}  // namespace plait
