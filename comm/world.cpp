#include "plait/world.hpp"
