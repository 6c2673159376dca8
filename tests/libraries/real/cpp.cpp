// C++ as compilers and libstdc++ have it: exceptions, threads, thread-local variables, streams and locales. What is printed is the same with every C library.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cwctype>
#include <exception>
#include <functional>
#include <future>
#include <iomanip>
#include <iostream>
#include <locale>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <numeric>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

namespace {

struct Traced {
    std::string name;
    explicit Traced(std::string name) : name(std::move(name)) { std::printf("  +%s\n", this->name.c_str()); }
    ~Traced() { std::printf("  -%s\n", name.c_str()); }
};

struct Base {
    virtual ~Base() = default;
    virtual int number() const { return 1; }
};
struct Left : virtual Base {
    int number() const override { return 2; }
};
struct Right : virtual Base {};
struct Both : Left, Right {};

struct Fault : std::runtime_error {
    int code;
    Fault(const char *text, int code) : std::runtime_error(text), code(code) {}
};

__attribute__((noinline)) int fall(int depth)
{
    Traced traced("level " + std::to_string(depth));
    if (depth == 0)
        throw Fault("the ground", 42);
    int result = fall(depth - 1) + 1;
    std::puts("  not reached");
    return result;
}

void exceptions()
{
    std::puts("exceptions");
    try {
        fall(3);
    } catch (const std::exception &error) {
        const Fault *fault = dynamic_cast<const Fault *>(&error);
        std::printf("  %s %d\n", error.what(), fault ? fault->code : -1);
    }
    try {
        try {
            throw std::string("inner");
        } catch (...) {
            Traced traced("handler");
            throw;
        }
    } catch (const std::string &text) {
        std::printf("  again %s, %d in flight\n", text.c_str(), std::uncaught_exceptions());
    }
    try {
        try {
            std::stoi("no number");
        } catch (...) {
            std::throw_with_nested(Fault("outer", 7));
        }
    } catch (const Fault &fault) {
        try {
            std::rethrow_if_nested(fault);
        } catch (const std::invalid_argument &inner) {
            std::printf("  %s in %s\n", inner.what(), fault.what());
        }
    }
    try {
        std::vector<int>(3).at(5);
    } catch (const std::out_of_range &error) {
        std::printf("  %s\n", error.what());
    }
    try {
        std::unique_ptr<char[]> much(new char[std::size_t(1) << 46]);
        std::printf("  %p\n", (void *)much.get());
    } catch (const std::bad_alloc &error) {
        std::printf("  %s\n", error.what());
    }
    std::unique_ptr<Base> both(new Both), plain(new Base);
    std::printf("  %d %d %d\n", both->number(), dynamic_cast<Right *>(both.get()) != nullptr, dynamic_cast<Left *>(plain.get()) == nullptr);
    try {
        (void)dynamic_cast<Left &>(*plain);
    } catch (const std::bad_cast &error) {
        std::printf("  %s\n", error.what());
    }
    // From a constructor: what was built before goes.
    struct Whole {
        Traced part{"part"};
        Whole() { throw 5; }
    };
    try {
        Whole whole;
    } catch (int number) {
        std::printf("  %d\n", number);
    }
}

thread_local std::string of_thread = "new";
thread_local std::unique_ptr<int, void (*)(int *)> counted(new int(0), [](int *number) {
    static std::mutex mutex;
    static int sum;
    std::lock_guard<std::mutex> guard(mutex);
    sum += *number;
    if (*number == 4)
        std::printf("  last of a thread\n");
    delete number;
});

void threads()
{
    std::puts("threads");
    std::mutex mutex;
    std::condition_variable turned;
    int turn = 0;
    long sum = 0;
    std::vector<std::thread> all;
    for (int number = 0; number < 5; number++)
        all.emplace_back([&, number] {
            of_thread += std::to_string(number);
            *counted = number;
            for (int round = 0; round < 500; round++) {
                std::lock_guard<std::mutex> guard(mutex);
                sum += number;
            }
            std::unique_lock<std::mutex> lock(mutex);
            turned.wait(lock, [&] { return turn == number; });
            std::printf("  thread %d has %s\n", number, of_thread.c_str());
            turn++;
            turned.notify_all();
        });
    std::thread::id first = all[0].get_id();
    for (auto &thread : all)
        thread.join();
    std::printf("  %ld, here %s, %d\n", sum, of_thread.c_str(), first != std::this_thread::get_id());

    std::promise<std::string> promise;
    std::future<std::string> future = promise.get_future();
    std::thread thrower([&promise] {
        try {
            fall(1);
        } catch (...) {
            promise.set_exception(std::current_exception());
        }
    });
    try {
        future.get();
    } catch (const Fault &fault) {
        std::printf("  another thread's: %s\n", fault.what());
    }
    thrower.join();
    auto answer = std::async(std::launch::async, [](int a, int b) { return a * b; }, 6, 7);
    std::printf("  %d\n", answer.get());
    std::once_flag once;
    for (int round = 0; round < 3; round++)
        std::call_once(once, [] { std::puts("  once"); });
    std::thread([] {}).detach();
    auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(5);
    std::unique_lock<std::mutex> lock(mutex);
    std::printf("  in vain: %d\n", !turned.wait_until(lock, until, [] { return false; }));
}

void streams()
{
    std::cout << "streams\n  " << std::hex << 255 << ' ' << std::dec << std::setw(8) << std::setfill('*') << 3.25 << ' '
              << std::scientific << std::setprecision(3) << 12345.678 << ' ' << std::boolalpha << true << std::endl;
    std::istringstream in("12 0x1f 2.5e3 word");
    int a = 0, b = 0;
    double c = 0;
    std::string d;
    in >> a >> std::hex >> b >> c >> d;
    std::cout << std::defaultfloat << "  " << a << ' ' << b << ' ' << c << ' ' << d << ' ' << in.eof() << '\n';
    std::wostringstream wide;
    wide << L"wide " << 42 << L' ' << std::fixed << std::setprecision(2) << 2.5;
    std::wstring text = wide.str();
    std::cout << "  " << std::string(text.begin(), text.end()) << ' ' << text.size() << '\n';
    std::transform(text.begin(), text.end(), text.begin(), [](wchar_t c) { return std::towupper(c); });
    std::cout << "  " << std::string(text.begin(), text.end()) << '\n';
    std::cout << "  " << std::locale().name() << ' ' << std::use_facet<std::numpunct<char>>(std::locale()).decimal_point() << '\n';
    try {
        std::locale none("xx_YY.UTF-8");
    } catch (const std::runtime_error &error) {
        std::cout << "  no such locale\n";
    }
    std::istringstream bad("x");
    bad.exceptions(std::ios::failbit);
    try {
        bad >> a;
    } catch (const std::ios_base::failure &) {
        std::cout << "  a stream has thrown\n";
    }
    std::tm day = {};
    day.tm_year = 100;
    day.tm_mon = 1;
    day.tm_mday = 29;
    std::cout << "  " << std::put_time(&day, "%Y-%m-%d %A") << '\n';
    std::wcout << L"  wide out" << std::endl;
}

void containers()
{
    std::puts("containers");
    std::map<std::string, int> words;
    std::istringstream text("the cat and the dog and the bird");
    for (std::string word; text >> word;)
        words[word]++;
    for (const auto &[word, count] : words)
        std::printf("  %s %d\n", word.c_str(), count);
    std::unordered_map<int, std::string> numbers;
    for (int number = 0; number < 1000; number++)
        numbers[number * 7919] = std::to_string(number);
    std::printf("  %zu %s\n", numbers.size(), numbers.at(7919 * 500).c_str());
    std::vector<int> order(1000);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [](int a, int b) { return a * 7919 % 1009 < b * 7919 % 1009; });
    std::printf("  %d %d %d\n", order[0], order[1], order[999]);
    std::regex pattern("([a-z]+)-([0-9]+)");
    std::smatch match;
    std::string subject = "see item-42 there";
    std::printf("  %d", std::regex_search(subject, match, pattern));
    std::printf(" %s %s\n", match[1].str().c_str(), match[2].str().c_str());
    std::shared_ptr<Traced> shared = std::make_shared<Traced>("shared");
    std::weak_ptr<Traced> weak = shared;
    shared.reset();
    std::printf("  %d\n", weak.expired());
    std::function<int(int)> factorial = [&](int n) { return n < 2 ? 1 : n * factorial(n - 1); };
    std::printf("  %d\n", factorial(10));
}

} // namespace

extern "C" int main()
{
    exceptions();
    threads();
    streams();
    containers();
    return 0;
}
