// The ring, its readers, and the file that is left of them.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "pod_headers.h"

namespace
{

using Bytes = std::vector<uint8_t>;

// A byte that its offset makes.
uint8_t ByteAt(uint64_t offset)
{
    return static_cast<uint8_t>(offset * 31 + (offset >> 8) * 7 + (offset >> 16));
}

void WriteNumbered(pod_ring *ring, size_t size)
{
    Bytes bytes(size);
    for (size_t i = 0; i < size; i++) {
        bytes[i] = ByteAt(ring->end + i);
    }
    pod_ring_write(ring, bytes.data(), size);
}

// What a reader was told.
struct Reader {
    pod_tracker tracker = {};
    uint64_t bytes = 0, skipped = 0;
    unsigned gaps = 0, exits = 0;
    int result = 0;

    void Take(const pod_message &m)
    {
        int taken = pod_tracker_take(&tracker, &m);
        result = result != 0 ? result : taken;
        if (m.type == POD_OUTPUT) {
            for (size_t i = 0; i < m.u.output.data.size; i++) {
                ASSERT_EQ(m.u.output.data.data[i], ByteAt(m.u.output.offset + i));
            }
            bytes += m.u.output.data.size;
        } else if (m.type == POD_GAP) {
            gaps++;
            skipped += m.u.gap.to - m.u.gap.from;
        } else if (m.type == POD_EXIT) {
            exits++;
        }
    }
    static void Handle(void *user, const pod_message *m)
    {
        static_cast<Reader *>(user)->Take(*m);
    }
};

// Through the bytes of the frame, as it goes over a wire.
void TakePiece(Reader *reader, const pod_piece &piece)
{
    Bytes bytes(piece.head, piece.head + piece.head_size);
    bytes.insert(bytes.end(), piece.data.data, piece.data.data + piece.data.size);
    pod_decoder decoder;
    pod_decoder_init(&decoder, POD_FRAME_MAX);
    pod_bytes data = {bytes.data(), bytes.size()};
    pod_frame frame;
    pod_message m;
    ASSERT_EQ(pod_decoder_next(&decoder, &data, &frame), 1);
    ASSERT_EQ(pod_decode(&frame, &m), 0);
    reader->Take(m);
    pod_decoder_clear(&decoder);
}

TEST(Ring, KeepsTheLastBytesAndNamesTheGapExactly)
{
    pod_ring ring;
    ASSERT_TRUE(pod_ring_init(&ring, 1000));
    WriteNumbered(&ring, 300);
    EXPECT_EQ(ring.first, 0u);
    WriteNumbered(&ring, 900);
    EXPECT_EQ(ring.first, 200u);
    EXPECT_EQ(ring.end, 1200u);
    WriteNumbered(&ring, 5000); // More than it holds, in one piece.
    EXPECT_EQ(ring.first, 5200u);
    EXPECT_EQ(ring.end, 6200u);
    pod_cursor cursor;
    ASSERT_EQ(pod_cursor_place(&cursor, &ring, POD_CHANNEL_OUT, 17), 0);
    Reader reader;
    reader.tracker.next[0] = 17;
    pod_piece piece;
    while (pod_cursor_next(&cursor, &ring, {false, false}, 64, &piece)) {
        TakePiece(&reader, piece);
    }
    EXPECT_EQ(reader.result, 0);
    EXPECT_EQ(reader.gaps, 1u);
    EXPECT_EQ(reader.skipped, 5183u);
    EXPECT_EQ(reader.bytes, 1000u);
    EXPECT_EQ(pod_cursor_place(&cursor, &ring, POD_CHANNEL_OUT, 6201), -POD_E_INVALID);
    ASSERT_EQ(pod_cursor_place(&cursor, &ring, POD_CHANNEL_OUT, POD_FROM_NOW), 0);
    EXPECT_EQ(cursor.offset, 6200u);
    ASSERT_EQ(pod_cursor_place(&cursor, &ring, POD_CHANNEL_OUT, POD_FROM_KEPT), 0);
    EXPECT_EQ(cursor.offset, 5200u);
    pod_ring_clear(&ring);
}

TEST(Ring, ReadersOfAnyPaceGetEachByteOnceOrOneGap)
{
    std::mt19937 random(7);
    for (int round = 0; round < 200; round++) {
        pod_ring ring;
        ASSERT_TRUE(pod_ring_init(&ring, 64 + random() % 700));
        pod_cursor cursor;
        ASSERT_EQ(pod_cursor_place(&cursor, &ring, POD_CHANNEL_OUT, 0), 0);
        Reader reader;
        pod_piece piece;
        for (int step = 0; step < 60; step++) {
            WriteNumbered(&ring, random() % 400);
            for (size_t n = random() % 4; n > 0; n--) {
                if (pod_cursor_next(&cursor, &ring, {false, false}, 1 + random() % 300, &piece)) {
                    TakePiece(&reader, piece);
                }
            }
        }
        while (pod_cursor_next(&cursor, &ring, {true, true}, 300, &piece)) {
            TakePiece(&reader, piece);
        }
        EXPECT_EQ(reader.result, 0);
        EXPECT_TRUE(reader.tracker.ended[0]);
        EXPECT_EQ(reader.bytes + reader.skipped, ring.end);
        pod_ring_clear(&ring);
    }
}

TEST(Tracker, WhatIsMissingDoubleOrLateIsNoticed)
{
    uint8_t bytes[4] = {};
    pod_message out = {}, end = {}, gap = {}, exit = {};
    out.type = POD_OUTPUT;
    end.type = POD_END;
    gap.type = POD_GAP;
    exit.type = POD_EXIT;
    exit.u.exit = {};
    exit.u.exit.kind = POD_EXIT_EXITED;
    uint64_t from[2] = {10, 0};
    pod_tracker tracker;
    auto take = [&](const pod_message &m) { return pod_tracker_take(&tracker, &m); };
    pod_tracker_begin(&tracker, from);
    out.u.output = {0, 10, {bytes, 4}};
    EXPECT_EQ(take(out), 0);
    EXPECT_EQ(take(out), -POD_E_PROTOCOL); // Double.
    out.u.output.offset = 15;
    EXPECT_EQ(take(out), -POD_E_PROTOCOL); // One is missing.
    gap.u.gap = {0, 14, 15};
    EXPECT_EQ(take(gap), 0);
    EXPECT_EQ(take(out), 0);
    EXPECT_EQ(take(exit), -POD_E_PROTOCOL); // Ahead of the ends.
    end.u.end = {0, 0, 18};
    EXPECT_EQ(take(end), -POD_E_PROTOCOL);
    end.u.end.offset = 19;
    EXPECT_EQ(take(end), 0);
    end.u.end = {1, 0, 0};
    EXPECT_EQ(take(end), 0);
    exit.u.exit.end[0] = 18;
    EXPECT_EQ(take(exit), -POD_E_PROTOCOL);
    exit.u.exit.end[0] = 19;
    EXPECT_EQ(take(exit), 0);
    EXPECT_EQ(take(out), -POD_E_PROTOCOL);
}

struct Tomb {
    pod_ring ring = {};
    pod_tomb_source source = {};
    Bytes file;

    explicit Tomb(size_t capacity, size_t written)
    {
        EXPECT_TRUE(pod_ring_init(&ring, capacity));
        WriteNumbered(&ring, written);
        source.head.session = {reinterpret_cast<const uint8_t *>("id"), 2};
        source.rings[0] = &ring;
        source.exit.kind = POD_EXIT_EXITED;
        source.exit.code = 3;
        source.exit.end[0] = ring.end;
        Write();
    }
    ~Tomb()
    {
        pod_ring_clear(&ring);
    }
    static int Put(void *user, const void *data, size_t size)
    {
        Bytes *file = static_cast<Bytes *>(user);
        const uint8_t *bytes = static_cast<const uint8_t *>(data);
        file->insert(file->end(), bytes, bytes + size);
        return 0;
    }
    void Write()
    {
        file.clear();
        EXPECT_EQ(pod_tomb_write(&source, Put, &file), 0);
    }
    int Read(uint64_t from, Reader *reader)
    {
        uint64_t offsets[2] = {from, 0};
        pod_tracker_begin(&reader->tracker, offsets);
        return pod_tomb_read(file.data(), file.size(), offsets, Reader::Handle, reader);
    }
};

TEST(Tomb, ReadsLikeAConnectionFromAnyOffset)
{
    Tomb tomb(200000, 300000);
    for (unsigned from : {0u, 1u, 99999u, 100000u, 100001u, 165535u, 299999u, 300000u}) {
        Reader reader;
        ASSERT_EQ(tomb.Read(from, &reader), 0) << from;
        EXPECT_EQ(reader.result, 0) << from;
        EXPECT_EQ(reader.gaps, from < 100000 ? 1u : 0u) << from;
        EXPECT_EQ(reader.exits, 1u);
        EXPECT_EQ(from + reader.skipped + reader.bytes, 300000u);
    }
    Reader reader;
    EXPECT_EQ(tomb.Read(300001, &reader), -POD_E_INVALID);
    tomb.source.without_output = true;
    tomb.Write();
    EXPECT_LT(tomb.file.size(), 256u);
    Reader later;
    ASSERT_EQ(tomb.Read(5, &later), 0);
    EXPECT_EQ(later.skipped, 299995u);
    EXPECT_EQ(later.exits, 1u);
}

TEST(Tomb, DamageAnywhereIsSeen)
{
    Tomb tomb(4096, 300);
    Bytes whole = tomb.file;
    for (size_t cut = 0; cut < whole.size(); cut++) {
        tomb.file.assign(whole.begin(), whole.begin() + static_cast<long>(cut));
        Reader reader;
        EXPECT_EQ(tomb.Read(0, &reader), -POD_E_PROTOCOL) << cut;
        EXPECT_EQ(reader.bytes, 0u);
    }
    tomb.file = whole;
    for (size_t at = 0; at < tomb.file.size(); at++) {
        tomb.file[at] ^= 1;
        Reader reader;
        EXPECT_EQ(tomb.Read(0, &reader), -POD_E_PROTOCOL) << at;
        EXPECT_EQ(reader.exits, 0u);
        tomb.file[at] ^= 1;
    }
}

} // namespace
