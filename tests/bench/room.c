/* Gives sockets of a load generator room for every answer: one socket stands for a thousand machines, each of which
   would have one of its own. Loaded by dhcp.sh into perfdhcp, which has no option for it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/socket.h>

int bind(int fd, const struct sockaddr *address, socklen_t length)
{
    int (*next)(int, const struct sockaddr *, socklen_t) =
        (int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "bind");
    int bytes = 32 << 20;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
    return next(fd, address, length);
}
