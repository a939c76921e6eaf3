/* Frames over a socket pair: what is sent comes out the same however the bytes are cut up, and what is no frame, too long, not read, or cut
 * off is told as such. */
#include "core/comm/control.h"
#include "core/comm/frame.h"
#include "core/comm/wire.h"

#include "core/base/random.h"

#include "test/unit/scratch.h"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

enum { LIMIT = 1 << 16 };

/* A stream and the bare other end of its socket. */
static struct frame_stream *stream_open(int *other)
{
	int fds[2];
	struct frame_stream *stream = NULL;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	OK(frame_stream_open(fds[0], LIMIT, &stream));
	assert_int_equal(frame_stream_fd(stream), fds[0]);
	*other = fds[1];
	return stream;
}

static void header_put(uint8_t header[FRAME_HEADER_BYTES], uint32_t count, uint8_t type, uint8_t scope, uint8_t zero)
{
	memset(header, 0, FRAME_HEADER_BYTES);
	wire_put_u32(header, count);
	header[4] = type;
	header[5] = scope;
	header[6] = zero;
	wire_put_u32(header + 8, 0x01020304);
	wire_put_u64(header + 12, 0x1112131415161718);
}

static void put(int fd, const void *bytes, size_t count)
{
	assert_int_equal(write(fd, bytes, count), count);
}

static void test_bytes_on_the_wire(void **state)
{
	(void)state;
	int other;
	struct frame_stream *stream = stream_open(&other);
	struct frame frame = {.type = FRAME_GATHER, .scope = SCOPE_RANKS, .member = 0x01020304, .number = 0x1112131415161718,
		.bytes = (const uint8_t *)"abc", .count = 3};
	OK(frame_stream_send(stream, &frame));
	uint8_t bytes[64];
	static const uint8_t wanted[] = {3, 0, 0, 0, FRAME_GATHER, SCOPE_RANKS, 0, 0, 4, 3, 2, 1, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 'a', 'b',
		'c'};
	assert_int_equal(read(other, bytes, sizeof bytes), sizeof wanted);
	assert_memory_equal(bytes, wanted, sizeof wanted);
	assert_false(frame_stream_pending(stream));
	frame_stream_close(stream);
	close(other);
	frame_stream_close(NULL);
}

/* Two frames, cut at every byte: the first part of them yields exactly the frames that are whole. */
static void test_every_cut(void **state)
{
	(void)state;
	uint8_t bytes[2 * FRAME_HEADER_BYTES + 5];
	header_put(bytes, 5, FRAME_ABORT, SCOPE_RANKS, 0);
	memcpy(bytes + FRAME_HEADER_BYTES, "hello", 5);
	header_put(bytes + FRAME_HEADER_BYTES + 5, 0, FRAME_BEAT, SCOPE_HOSTS, 0);
	for (size_t cut = 0; cut <= sizeof bytes; cut++) {
		int other, whole = 0;
		struct frame_stream *stream = stream_open(&other);
		struct frame frame;
		for (int part = 0; part < 2; part++) {
			if (part == 0)
				put(other, bytes, cut);
			else
				put(other, bytes + cut, sizeof bytes - cut);
			OK(frame_stream_read(stream));
			while (frame_stream_next(stream, &frame)) {
				assert_int_equal(frame.type, whole == 0 ? FRAME_ABORT : FRAME_BEAT);
				assert_int_equal(frame.scope, whole == 0 ? SCOPE_RANKS : SCOPE_HOSTS);
				assert_int_equal(frame.member, 0x01020304);
				assert_int_equal(frame.number, 0x1112131415161718);
				assert_int_equal(frame.count, whole == 0 ? 5 : 0);
				if (whole == 0)
					assert_memory_equal(frame.bytes, "hello", 5);
				else
					assert_null(frame.bytes);
				whole++;
			}
			size_t there = part == 0 ? cut : sizeof bytes;
			assert_int_equal(whole, (there >= FRAME_HEADER_BYTES + 5) + (there == sizeof bytes));
		}
		frame_stream_close(stream);
		close(other);
	}
}

static void test_random_pieces(void **state)
{
	(void)state;
	struct random_stream random = random_open(7, RANDOM_TEST, 0, 0);
	int other;
	struct frame_stream *stream = stream_open(&other), *sender = NULL;
	OK(frame_stream_open(other, LIMIT, &sender));
	static uint8_t payload[LIMIT];
	for (size_t i = 0; i < sizeof payload; i++)
		payload[i] = (uint8_t)(i * 7 + i / 256);
	unsigned sent = 0, taken = 0;
	size_t counts[400];
	while (taken < 400) {
		if (sent < 400 && random_below(&random, 3) > 0) {
			counts[sent] = random_below(&random, 4) == 0 ? random_below(&random, LIMIT + 1) : random_below(&random, 40);
			struct frame frame = {.type = FRAME_GATHER, .number = sent, .bytes = payload, .count = counts[sent]};
			OK(frame_stream_send(sender, &frame));
			sent++;
		} else {
			struct frame frame;
			frame_stream_flush(sender);
			OK(frame_stream_read(stream));
			while (frame_stream_next(stream, &frame)) {
				assert_int_equal(frame.number, taken);
				assert_int_equal(frame.count, counts[taken]);
				assert_int_equal(frame.count == 0 ? 0 : memcmp(frame.bytes, payload, frame.count), 0);
				taken++;
			}
		}
	}
	assert_int_equal(sent, 400);
	assert_false(frame_stream_pending(sender));
	frame_stream_close(stream);
	frame_stream_close(sender);
}

/* However the buffer was moved and grown meanwhile, every header is looked at. */
static void test_no_frame_after_many(void **state)
{
	(void)state;
	enum { FRAMES = 60 };
	static uint8_t bytes[FRAMES * (FRAME_HEADER_BYTES + LIMIT) + FRAME_HEADER_BYTES];
	for (uint64_t seed = 0; seed < 20; seed++) {
		struct random_stream random = random_open(seed, RANDOM_TEST, 1, 0);
		int other, taken = 0;
		size_t used = 0, at = 0;
		struct frame frame;
		struct frame_stream *stream = stream_open(&other);
		for (int i = 0; i < FRAMES; i++) {
			uint32_t count = random_below(&random, LIMIT + 1);
			header_put(bytes + used, count, FRAME_GATHER, 0, 0);
			used += FRAME_HEADER_BYTES + count;
		}
		header_put(bytes + used, LIMIT + 1, FRAME_GATHER, 0, 0);
		while (at < used) {
			size_t piece = 1 + random_below(&random, 50000);
			piece = piece < used - at ? piece : used - at;
			put(other, bytes + at, piece);
			at += piece;
			OK(frame_stream_read(stream));
			while (frame_stream_next(stream, &frame))
				taken++;
		}
		assert_int_equal(taken, FRAMES);
		put(other, bytes + used, FRAME_HEADER_BYTES);
		FAILS(ST_DEVICE, "65537 bytes, at most 65536", frame_stream_read(stream));
		assert_false(frame_stream_next(stream, &frame));
		frame_stream_close(stream);
		close(other);
	}
}

static void test_no_frame(void **state)
{
	(void)state;
	static const struct {
		uint32_t count;
		uint8_t type, scope, zero;
		const char *sentence;
	} wrong[] = {
		{LIMIT + 1, FRAME_BEAT, 0, 0, "65537 bytes, at most 65536"},
		{0xffffffff, FRAME_BEAT, 0, 0, "4294967295 bytes"},
		{0, FRAME_TYPES, 0, 0, "no frame of smelt"},
		{0, 255, 0, 0, "no frame of smelt"},
		{0, FRAME_BEAT, SCOPES, 0, "no frame of smelt"},
		{0, FRAME_BEAT, 0, 1, "no frame of smelt"},
	};
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		int other;
		struct frame frame;
		uint8_t header[FRAME_HEADER_BYTES];
		struct frame_stream *stream = stream_open(&other);
		header_put(header, 2, FRAME_BEAT, 0, 0); /* a good one before is still there to take */
		put(other, header, sizeof header);
		put(other, "ok", 2);
		header_put(header, wrong[i].count, wrong[i].type, wrong[i].scope, wrong[i].zero);
		put(other, header, sizeof header);
		FAILS(ST_DEVICE, wrong[i].sentence, frame_stream_read(stream));
		assert_true(frame_stream_next(stream, &frame));
		assert_memory_equal(frame.bytes, "ok", 2);
		assert_false(frame_stream_next(stream, &frame));
		frame_stream_close(stream);
		close(other);
	}
	int other;
	struct frame_stream *stream = stream_open(&other);
	put(other, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27);
	FAILS(ST_DEVICE, "", frame_stream_read(stream));
	frame_stream_close(stream);
	close(other);
}

static void test_limit(void **state)
{
	(void)state;
	int other;
	struct frame frame;
	struct frame_stream *stream = stream_open(&other);
	uint8_t bytes[FRAME_HEADER_BYTES + 100] = {0};
	header_put(bytes, 100, FRAME_BEAT, 0, 0);
	frame_stream_limit(stream, 100);
	put(other, bytes, sizeof bytes);
	OK(frame_stream_read(stream));
	assert_true(frame_stream_next(stream, &frame));
	frame_stream_limit(stream, 99);
	put(other, bytes, sizeof bytes);
	FAILS(ST_DEVICE, "100 bytes, at most 99", frame_stream_read(stream));
	frame_stream_close(stream);
	close(other);
}

/* What came before the end is not lost. */
static void test_closed(void **state)
{
	(void)state;
	int other;
	struct frame frame;
	uint8_t header[FRAME_HEADER_BYTES];
	struct frame_stream *stream = stream_open(&other);
	OK(frame_stream_read(stream));
	assert_false(frame_stream_next(stream, &frame));
	header_put(header, 0, FRAME_DONE, 0, 0);
	put(other, header, sizeof header);
	close(other);
	OK(frame_stream_send(stream, &(struct frame){.type = FRAME_BEAT})); /* swallowed, and no SIGPIPE */
	assert_false(frame_stream_pending(stream));
	OK(frame_stream_read(stream));
	assert_true(frame_stream_next(stream, &frame));
	assert_false(frame_stream_next(stream, &frame));
	FAILS(ST_DEVICE, "closed by the other side", frame_stream_read(stream));
	frame_stream_close(stream);
}

/* One frame is taken, the second stays in the socket for whoever polls next. */
static void test_read_one(void **state)
{
	(void)state;
	int other;
	struct frame frame;
	struct frame_stream *stream = stream_open(&other);
	uint8_t bytes[2 * FRAME_HEADER_BYTES + 5];
	header_put(bytes, 5, FRAME_WELCOME, 0, 0);
	memcpy(bytes + FRAME_HEADER_BYTES, "hello", 5);
	header_put(bytes + FRAME_HEADER_BYTES + 5, 0, FRAME_HOLD, 0, 0);
	for (size_t i = 0; i < sizeof bytes; i++) {
		put(other, bytes + i, 1);
		OK(frame_stream_read_one(stream));
	}
	struct pollfd fd = {.fd = frame_stream_fd(stream), .events = POLLIN};
	assert_int_equal(poll(&fd, 1, 0), 1);
	assert_true(frame_stream_next(stream, &frame));
	assert_int_equal(frame.type, FRAME_WELCOME);
	assert_memory_equal(frame.bytes, "hello", 5);
	assert_false(frame_stream_next(stream, &frame));
	OK(frame_stream_read_one(stream));
	assert_true(frame_stream_next(stream, &frame));
	assert_int_equal(frame.type, FRAME_HOLD);
	assert_int_equal(poll(&fd, 1, 0), 0);
	frame_stream_close(stream);
	close(other);
}

static void test_queue_is_bounded(void **state)
{
	(void)state;
	int other;
	struct frame_stream *stream = stream_open(&other);
	static const uint8_t payload[1 << 20];
	struct frame frame = {.type = FRAME_GATHER, .bytes = payload, .count = sizeof payload};
	size_t sent = 0;
	enum status status;
	while ((status = frame_stream_send(stream, &frame)) == ST_OK)
		assert_true(++sent < 100);
	FAILS(ST_DEVICE, "does not read", status);
	assert_true(frame_stream_pending(stream));
	assert_true(sent * sizeof payload > FRAME_QUEUE_BYTES_MAX);
	/* All that was taken arrives. */
	struct frame_stream *reader = NULL;
	OK(frame_stream_open(other, sizeof payload, &reader));
	for (size_t got = 0; got < sent;) {
		frame_stream_flush(stream);
		OK(frame_stream_read(reader));
		while (frame_stream_next(reader, &frame))
			got++;
	}
	assert_false(frame_stream_pending(stream));
	frame_stream_close(stream);
	frame_stream_close(reader);
}

static void test_open_takes_the_socket(void **state)
{
	(void)state;
	struct frame_stream *stream = NULL;
	FAILS(ST_DEVICE, "cannot be used", frame_stream_open(-1, LIMIT, &stream));
	assert_null(stream);
}

int main(void)
{
	signal(SIGPIPE, SIG_DFL);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes_on_the_wire),
		cmocka_unit_test(test_every_cut),
		cmocka_unit_test(test_random_pieces),
		cmocka_unit_test(test_no_frame),
		cmocka_unit_test(test_no_frame_after_many),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_closed),
		cmocka_unit_test(test_read_one),
		cmocka_unit_test(test_queue_is_bounded),
		cmocka_unit_test(test_open_takes_the_socket),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
