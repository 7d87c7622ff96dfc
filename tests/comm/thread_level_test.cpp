// A World refuses an MPI that was not told of threads, and says what to do.
#include <cstdio>
#include <string>

#include "plait/comm_error.hpp"
#include "plait/world.hpp"

int main(int argc, char** argv) {
  std::string messages[2];
  for (std::string& message : messages) {
    try {
      plait::World world(MPI_COMM_WORLD);
    } catch (plait::CommError const& error) {
      message = error.what();
    }
    if (&message == messages) MPI_Init(&argc, &argv);  // the first attempt comes before MPI is initialised
  }
  MPI_Finalize();
  bool const right = messages[0].find("must be initialised") != std::string::npos &&
                     messages[1].find("MPI_THREAD_MULTIPLE") != std::string::npos;
  std::printf("without MPI: %s\nwithout threads: %s\n", messages[0].c_str(), messages[1].c_str());
  return right ? 0 : 1;
}
