// Notes between processes of one host: whole, in order, none lost where they come faster than they are read.
#include "peer/mailboxes.hpp"

#include <gtest/gtest.h>

#include <deque>
#include <random>
#include <thread>

#include "plait/comm_error.hpp"
#include "transport_case.hpp"

namespace plait {
namespace {

using namespace plait::test;

/// Each rank's, opened by all.
std::deque<Mailboxes> introduced(int ranks) {
  std::deque<Mailboxes> all;
  std::vector<std::string> names;
  for (int rank = 0; rank < ranks; ++rank) names.push_back(all.emplace_back(ranks, rank).name());
  for (Mailboxes& mail : all) mail.open(names);
  return all;
}

std::vector<Bytes> random_notes(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<std::size_t> length(0, Mailboxes::most_note_bytes);
  std::vector<Bytes> notes;
  for (std::size_t i = 0; i < count; ++i)
    notes.push_back(filled(seed + i, i % 3 == 0 ? i % 7 : length(random)));
  notes.push_back(filled(seed, Mailboxes::most_note_bytes));
  return notes;
}

TEST(Mailboxes, NotesBetweenAnyTwoArriveInOrder) {
  constexpr int ranks = 3;
  std::deque<Mailboxes> mail = introduced(ranks);
  for (int from = 0; from < ranks; ++from) {
    for (int to = 0; to < ranks; ++to) {
      for (Bytes const& note : random_notes(30, static_cast<unsigned>(10 * from + to))) {
        mail[static_cast<std::size_t>(from)].post(to, note);
      }
    }
  }
  for (int from = 0; from < ranks; ++from) {
    for (int to = 0; to < ranks; ++to) {
      for (Bytes const& note : random_notes(30, static_cast<unsigned>(10 * from + to))) {
        Bytes found;
        while (!mail[static_cast<std::size_t>(to)].take(from, found)) {
          (void)mail[static_cast<std::size_t>(from)].send_waiting();  // there was no room for all
        }
        ASSERT_EQ(found, note) << "from " << from << " to " << to;
      }
      Bytes none;
      EXPECT_FALSE(mail[static_cast<std::size_t>(to)].take(from, none));
    }
    EXPECT_TRUE(mail[static_cast<std::size_t>(from)].send_waiting());
  }
}

TEST(Mailboxes, AWriterAndAReaderAtOnce) {
  std::deque<Mailboxes> mail = introduced(2);
  std::vector<Bytes> const notes = random_notes(2000, 5);
  std::thread writer([&] {
    for (Bytes const& note : notes) mail[0].post(1, note);
    while (!mail[0].send_waiting()) std::this_thread::yield();
  });
  for (Bytes const& note : notes) {
    Bytes found;
    while (!mail[1].take(0, found)) std::this_thread::yield();
    ASSERT_EQ(found, note);
  }
  writer.join();
}

TEST(Mailboxes, BarriersAreCounted) {
  std::deque<Mailboxes> mail = introduced(2);
  EXPECT_EQ(mail[0].come_to_barrier(), 1u);
  EXPECT_TRUE(mail[1].has_come(0, 1));
  EXPECT_FALSE(mail[0].has_come(1, 1));
  EXPECT_EQ(mail[0].come_to_barrier(), 2u);
  EXPECT_EQ(mail[1].come_to_barrier(), 1u);
  EXPECT_TRUE(mail[0].has_come(1, 1));
  EXPECT_FALSE(mail[0].has_come(1, 2));
}

TEST(Mailboxes, WhatCannotBeIsAnError) {
  std::deque<Mailboxes> mail = introduced(1);
  EXPECT_THROW(mail[0].post(0, Bytes(Mailboxes::most_note_bytes + 1)), CommError);
  EXPECT_THROW((void)NamedMemory::open("/plait-nobody-made-this", 4096), CommError);
}

TEST(Mailboxes, NothingIsLeftBehind) {
  std::string name;
  {
    Mailboxes mail(1, 0);
    name = mail.name();
    EXPECT_NO_THROW((void)NamedMemory::open(name, 4096));
    mail.forget_name();
    EXPECT_THROW((void)NamedMemory::open(name, 4096), CommError);
  }
  name = Mailboxes(1, 0).name();
  EXPECT_THROW((void)NamedMemory::open(name, 4096), CommError);
}

}  // namespace
}  // namespace plait
