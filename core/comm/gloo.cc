/* gloo.cc: Gloo behind the seam in gloo.h. Gloo's types and exceptions stay in this file.
 *
 * Gloo does the collective algorithms and moves the bytes. What it lacks (version of May 2022), and what stands in its place here:
 *  - a collective cannot be ended from outside: Gloo gets its buffers from us (class Buffer), which we can wake;
 *  - a deadline is one for each wait, and missing it closes everything: our waits have none, comm.c watches the clock and aborts;
 *  - when a connection breaks in the middle of a message, who waits for that message is not told. So on each connection we also wait for
 *    a message that never comes (`sentinels`): those are told always, and mesh_broken looks at them;
 *  - names: CreateDevice would ask the resolver; the device is made from a numeric address instead.
 * On Gloo's own thread an exception ends the process. That takes ranks that disagree about the size of a sum, or a stranger who connects
 * in the instant between listening and connecting and talks rubbish. */
#include "core/comm/gloo.h"

#include <gloo/allreduce.h>
#include <gloo/broadcast.h>
#include <gloo/config.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/store.h>
#include <gloo/transport/tcp/device.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

namespace transport = gloo::transport;
using std::chrono::milliseconds;

/* Gloo has no "no deadline". */
constexpr milliseconds forever = std::chrono::hours(24 * 365);
/* Of the sentinels; Gloo's own collectives have a number in the highest byte. */
constexpr uint64_t sentinel_slot = 1;

/* mesh_abort was called. */
struct Aborted : std::exception {
	const char *what() const noexcept override { return "it was given up"; }
};

/* A function of ours failed and left its sentence. */
struct Failed {
	enum status status;
};

/* What is under way in a mesh, so that it can be seen and ended from another thread. */
class Watch {
public:
	explicit Watch(int world) : waits_(static_cast<size_t>(world)) {}

	void add(transport::UnboundBuffer *buffer)
	{
		std::lock_guard<std::mutex> hold(lock_);
		buffers_.insert(buffer);
	}
	void remove(transport::UnboundBuffer *buffer)
	{
		std::lock_guard<std::mutex> hold(lock_);
		buffers_.erase(buffer);
	}
	void add(transport::Pair *pair)
	{
		std::lock_guard<std::mutex> hold(lock_);
		pairs_.push_back(pair);
	}
	void check()
	{
		std::lock_guard<std::mutex> hold(lock_);
		if (aborted_)
			throw Aborted();
	}
	void abort()
	{
		std::lock_guard<std::mutex> hold(lock_);
		aborted_ = true;
		for (auto *buffer : buffers_) {
			buffer->abortWaitRecv();
			buffer->abortWaitSend();
		}
		for (auto *pair : pairs_)
			pair->close();
	}
	void waits(int rank, int change)
	{
		waits_[static_cast<size_t>(rank)] += change;
	}
	int awaited() const
	{
		for (size_t rank = 0; rank < waits_.size(); rank++)
			if (waits_[rank] > 0)
				return static_cast<int>(rank);
		return -1;
	}

	std::atomic<uint64_t> bytes_sent{0};

private:
	std::mutex lock_;
	bool aborted_ = false;
	std::set<transport::UnboundBuffer *> buffers_;
	std::vector<transport::Pair *> pairs_;
	std::vector<std::atomic<int>> waits_; /* messages awaited from each rank, or by it */
};

/* Gloo's buffer with waits that mesh_abort ends and no deadline. */
class Buffer final : public transport::UnboundBuffer {
public:
	Buffer(std::shared_ptr<Watch> watch, std::unique_ptr<transport::UnboundBuffer> inner)
		: UnboundBuffer(inner->ptr, inner->size), watch_(std::move(watch)), inner_(std::move(inner))
	{
		watch_->add(inner_.get());
	}
	~Buffer() override
	{
		watch_->remove(inner_.get());
		for (auto &pending : pending_)
			watch_->waits(pending.first, -pending.second);
	}

	bool waitRecv(int *rank, milliseconds) override
	{
		return wait(&UnboundBuffer::waitRecv, rank);
	}
	bool waitSend(int *rank, milliseconds) override
	{
		return wait(&UnboundBuffer::waitSend, rank);
	}
	void abortWaitRecv() override
	{
		inner_->abortWaitRecv();
	}
	void abortWaitSend() override
	{
		inner_->abortWaitSend();
	}
	void send(int to, uint64_t slot, size_t offset, size_t count) override
	{
		all_or_abort([&] { inner_->send(to, slot, offset, count); });
		started(to);
		watch_->bytes_sent += count == kUnspecifiedByteCount ? size - offset : count;
	}
	void recv(int from, uint64_t slot, size_t offset, size_t count) override
	{
		all_or_abort([&] { inner_->recv(from, slot, offset, count); });
		started(from);
	}
	void recv(std::vector<int>, uint64_t, size_t, size_t) override
	{
		throw std::logic_error("no collective used here receives from any rank");
	}

private:
	/* Before a failure reaches those who then free memory, every connection is closed: nothing can be received into it any more. */
	template <typename Work> void all_or_abort(Work work)
	{
		try {
			watch_->check();
			work();
		} catch (...) {
			watch_->abort();
			throw;
		}
	}
	bool wait(bool (UnboundBuffer::*inner_wait)(int *, milliseconds), int *rank)
	{
		int peer = -1;
		all_or_abort([&] {
			if (!(inner_.get()->*inner_wait)(&peer, forever))
				throw Aborted();
		});
		pending_[peer]--;
		watch_->waits(peer, -1);
		if (rank != nullptr)
			*rank = peer;
		return true;
	}
	void started(int peer)
	{
		pending_[peer]++;
		watch_->waits(peer, 1);
	}

	std::shared_ptr<Watch> watch_;
	std::unique_ptr<transport::UnboundBuffer> inner_;
	std::map<int, int> pending_;
};

/* Gloo's context, handing out our buffers. */
class Context final : public transport::Context {
public:
	Context(std::shared_ptr<Watch> watch, std::shared_ptr<transport::Context> inner)
		: transport::Context(inner->rank, inner->size), watch_(std::move(watch)), inner_(std::move(inner))
	{
	}
	std::unique_ptr<transport::Pair> &getPair(int peer) override
	{
		return inner_->getPair(peer);
	}
	std::unique_ptr<transport::Pair> &createPair(int peer) override
	{
		watch_->check();
		inner_->setTimeout(getTimeout());
		auto &pair = inner_->createPair(peer);
		watch_->add(pair.get());
		return pair;
	}
	std::unique_ptr<transport::UnboundBuffer> createUnboundBuffer(void *bytes, size_t count) override
	{
		return std::make_unique<Buffer>(watch_, inner_->createUnboundBuffer(bytes, count));
	}

private:
	std::shared_ptr<Watch> watch_;
	std::shared_ptr<transport::Context> inner_;
};

/* Gloo's TCP device, handing out our context. */
class Device final : public transport::Device {
public:
	Device(std::shared_ptr<Watch> watch, std::shared_ptr<transport::Device> inner) : watch_(std::move(watch)), inner_(std::move(inner)) {}
	std::string str() const override
	{
		return inner_->str();
	}
	const std::string &getPCIBusID() const override
	{
		return inner_->getPCIBusID();
	}
	std::shared_ptr<transport::Context> createContext(int rank, int size) override
	{
		context = inner_->createContext(rank, size);
		return std::make_shared<Context>(watch_, context);
	}

	std::shared_ptr<transport::Context> context; /* the last one, Gloo's own */

private:
	std::shared_ptr<Watch> watch_;
	std::shared_ptr<transport::Device> inner_;
};

/* Where Gloo leaves this rank's addresses and looks for the others': one gather. Each rank also asks for names of hosts, only to count
 * the ranks of its own; nothing here uses that, so it gets names that differ. */
class Store final : public gloo::rendezvous::Store {
public:
	Store(struct control *control, int world) : control_(control), world_(world) {}
	void set(const std::string &key, const std::vector<char> &data) override
	{
		if (is_name(key))
			return;
		struct control_blobs blobs = {nullptr, nullptr, nullptr};
		enum status result = control_gather(control_, data.data(), data.size(), &blobs);
		if (result != ST_OK)
			throw Failed{result};
		try {
			for (int rank = 0; rank < world_; rank++) {
				if (blobs.counts[rank] != data.size())
					throw Failed{FAIL(ST_DEVICE, "rank %d gave %zu bytes of addresses, expected %zu", rank, blobs.counts[rank], data.size())};
				addresses_.emplace_back(blobs.blobs[rank], blobs.blobs[rank] + blobs.counts[rank]);
			}
		} catch (...) {
			control_blobs_free(&blobs);
			throw;
		}
		control_blobs_free(&blobs);
	}
	std::vector<char> get(const std::string &key) override
	{
		return is_name(key) ? std::vector<char>(key.begin(), key.end()) : addresses_.at(std::stoul(key));
	}
	void wait(const std::vector<std::string> &) override {}
	void wait(const std::vector<std::string> &, const milliseconds &) override {}

private:
	static bool is_name(const std::string &key)
	{
		return key.compare(0, 5, "rank_") == 0;
	}

	struct control *control_;
	int world_;
	std::vector<std::vector<char>> addresses_;
};

/* An address of this host, as Gloo wants it. No resolver is asked. */
struct transport::tcp::attr address_parse(const char *address)
{
	struct addrinfo hints = {}, *found = nullptr;
	hints.ai_flags = AI_NUMERICHOST;
	hints.ai_socktype = SOCK_STREAM;
	int error = getaddrinfo(address, nullptr, &hints, &found);
	if (error != 0)
		throw Failed{FAIL(ST_DEVICE, "\"%s\" is no address of a network interface in numbers: %s", address, gai_strerror(error))};
	struct transport::tcp::attr attr;
	attr.ai_family = found->ai_family;
	attr.ai_socktype = SOCK_STREAM;
	attr.ai_protocol = 0;
	attr.ai_addrlen = static_cast<int>(found->ai_addrlen);
	std::memset(&attr.ai_addr, 0, sizeof attr.ai_addr);
	std::memcpy(&attr.ai_addr, found->ai_addr, found->ai_addrlen);
	freeaddrinfo(found);

	int fd = socket(attr.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool bound = fd >= 0 && bind(fd, reinterpret_cast<const sockaddr *>(&attr.ai_addr), static_cast<socklen_t>(attr.ai_addrlen)) == 0;
	int reason = errno;
	if (fd >= 0)
		close(fd);
	if (!bound)
		throw Failed{FAIL(ST_DEVICE, "the address %s cannot be used for connections between ranks: %s", address, strerror(reason))};
	return attr;
}

/* "[file:line] text" of Gloo without the place. */
const char *plain(const char *text)
{
	const char *end = text[0] == '[' ? std::strstr(text, "] ") : nullptr;
	return end != nullptr ? end + 2 : text;
}

} // namespace

struct mesh {
	mesh(int rank, int world) : context(std::make_shared<gloo::rendezvous::Context>(rank, world)), watch(std::make_shared<Watch>(world)) {}

	std::shared_ptr<gloo::rendezvous::Context> context;
	std::shared_ptr<Device> device; /* keeps the connections that `watch` points to, also when connecting fails */
	std::shared_ptr<Watch> watch;
	std::mutex sentinels_lock;
	std::vector<char> sentinels_bytes; /* what would be received */
	std::vector<std::unique_ptr<transport::UnboundBuffer>> sentinels; /* one a rank, none for this one */
};

/* Called while an exception is handled: its status and sentence. */
static enum status caught(struct mesh *mesh, const char *what) noexcept
{
	try {
		throw;
	} catch (const Failed &failed) {
		return failed.status;
	} catch (const std::bad_alloc &) {
		return FAIL(ST_MEMORY, "no memory for %s", what);
	} catch (const Aborted &aborted) {
		return FAIL(ST_DEVICE, "%s did not end: %s", what, aborted.what());
	} catch (const std::exception &exception) {
		int rank = mesh != nullptr ? mesh_broken(mesh) : -1;
		if (rank >= 0)
			return FAIL(ST_DEVICE, "rank %d closed its connection during %s", rank, what);
		return FAIL(ST_DEVICE, "%s failed: %s", what, plain(exception.what()));
	} catch (...) {
		return FAIL(ST_INTERNAL, "%s failed for an unknown reason", what);
	}
}

enum status mesh_open(int rank, int world, struct mesh **mesh)
{
	try {
		*mesh = new struct mesh(rank, world);
		return ST_OK;
	} catch (...) {
		return caught(nullptr, "connections between ranks");
	}
}

void mesh_close(struct mesh *mesh)
{
	delete mesh;
}

enum status mesh_connect(struct mesh *mesh, struct control *control, const char *address, int64_t timeout_us)
{
	try {
		auto tcp = std::make_shared<transport::tcp::Device>(address_parse(address));
		mesh->device = std::make_shared<Device>(mesh->watch, tcp);
		std::shared_ptr<transport::Device> device = mesh->device;
		Store store(control, mesh->context->size);
		mesh->context->setTimeout(milliseconds(timeout_us / 1000 + 1));
		mesh->context->connectFullMesh(store, device);
		mesh->watch->check();

		std::lock_guard<std::mutex> hold(mesh->sentinels_lock);
		size_t world = static_cast<size_t>(mesh->context->size);
		mesh->sentinels_bytes.resize(world);
		for (size_t rank = 0; rank < world; rank++) {
			mesh->sentinels.emplace_back();
			if (static_cast<int>(rank) == mesh->context->rank)
				continue;
			mesh->sentinels[rank] = mesh->device->context->createUnboundBuffer(&mesh->sentinels_bytes[rank], 1);
			mesh->sentinels[rank]->recv(static_cast<int>(rank), sentinel_slot);
		}
		return ST_OK;
	} catch (...) {
		return caught(mesh, "connecting with the other ranks");
	}
}

enum status mesh_sum(struct mesh *mesh, void *values, size_t count, size_t value_bytes, mesh_add *add, bool ring)
{
	try {
		gloo::AllreduceOptions options(mesh->context);
		options.setAlgorithm(ring ? gloo::AllreduceOptions::Algorithm::RING : gloo::AllreduceOptions::Algorithm::BCUBE);
		if (value_bytes == 2)
			options.setOutput(static_cast<uint16_t *>(values), count);
		else if (value_bytes == 4)
			options.setOutput(static_cast<uint32_t *>(values), count);
		else
			options.setOutput(static_cast<uint64_t *>(values), count);
		options.setReduceFunction(add);
		gloo::allreduce(options);
		return ST_OK;
	} catch (...) {
		return caught(mesh, "a sum over all ranks");
	}
}

enum status mesh_broadcast(struct mesh *mesh, void *bytes, size_t count, int root)
{
	try {
		gloo::BroadcastOptions options(mesh->context);
		options.setOutput(static_cast<char *>(bytes), count);
		options.setRoot(root);
		gloo::broadcast(options);
		return ST_OK;
	} catch (...) {
		return caught(mesh, "a broadcast to all ranks");
	}
}

void mesh_abort(struct mesh *mesh)
{
	mesh->watch->abort();
}

int mesh_broken(struct mesh *mesh)
{
	std::lock_guard<std::mutex> hold(mesh->sentinels_lock);
	for (size_t rank = 0; rank < mesh->sentinels.size(); rank++) {
		auto &sentinel = mesh->sentinels[rank];
		if (sentinel == nullptr)
			continue;
		try {
			/* A wait that ends at once; it throws when the connection is broken. */
			sentinel->abortWaitRecv();
			sentinel->waitRecv(forever);
		} catch (const std::exception &) {
			return static_cast<int>(rank);
		}
	}
	return -1;
}

int mesh_awaited(struct mesh *mesh)
{
	return mesh->watch->awaited();
}

uint64_t mesh_bytes_sent(struct mesh *mesh)
{
	return mesh->watch->bytes_sent;
}

#define WORD(x) #x
#define DOTTED(major, minor, patch) WORD(major) "." WORD(minor) "." WORD(patch)

const char *mesh_gloo_version(void)
{
	return DOTTED(GLOO_VERSION_MAJOR, GLOO_VERSION_MINOR, GLOO_VERSION_PATCH);
}
