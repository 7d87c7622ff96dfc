#include "plait/version.hpp"

namespace plait {

std::string_view version() {
  return PLAIT_VERSION;
}

}  // namespace plait
