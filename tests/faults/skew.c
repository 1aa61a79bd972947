/* A clock that is wrong: LD_PRELOAD this, with SKEW=seconds in the environment.
 * Only the wall clock; waits by the monotonic one are as long as ever. (libfaketime 0.9.10
 * cannot do that for Python: time.sleep then raises EINVAL, or an Event waits for ever.)
 * Needs a compiler and nothing else: cc -shared -fPIC -nostdlib -o skew.so skew.c
 */
struct timespec { long tv_sec, tv_nsec; };
struct timeval { long tv_sec, tv_usec; };
extern char *getenv(const char *);
extern long atol(const char *);
extern void *dlsym(void *, const char *);

#define NEXT ((void *) -1L)
#define REALTIME 0
#define REALTIME_COARSE 5

int clock_gettime(int id, struct timespec *now)
{
    static int (*real)(int, struct timespec *);
    if (!real)
        real = (int (*)(int, struct timespec *)) dlsym(NEXT, "clock_gettime");
    int failed = real(id, now);
    const char *skew = getenv("SKEW");
    if (!failed && skew && (id == REALTIME || id == REALTIME_COARSE))
        now->tv_sec += atol(skew);
    return failed;
}

long time(long *out)
{
    struct timespec now;
    clock_gettime(REALTIME, &now);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *out, void *zone)
{
    struct timespec now;
    (void) zone;
    clock_gettime(REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}
