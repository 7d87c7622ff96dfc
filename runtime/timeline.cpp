#include "plait/timeline.hpp"

namespace plait {

std::string_view name(Event::Kind kind) {
  switch (kind) {
    case Event::Kind::fold:
      return "fold";
    case Event::Kind::merge:
      return "merge";
    case Event::Kind::finish:
      return "finish";
    case Event::Kind::wait:
      return "wait";
    case Event::Kind::send:
      return "send";
    case Event::Kind::receive:
      return "receive";
  }
  __builtin_unreachable();
}

}  // namespace plait
