// The other end of an exchange that must pass descriptors, which Node cannot. Takes one connection at
// PATH, prints how many descriptors came and what the first one holds, then answers with the bytes of
// ANSWER (a file, length prefix included) and COUNT ends of a stream socket pair.
// Usage: fd-answer PATH ANSWER COUNT
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char control[CMSG_SPACE(253 * sizeof(int))];

static void take(int connection) {
  char bytes[65536];
  struct iovec part = {bytes, sizeof(bytes)};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
  if (recvmsg(connection, &message, 0) <= 0) exit(1);
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  int count = header == NULL ? 0 : (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
  char content[64] = "";
  if (count > 0) {
    int first;
    memcpy(&first, CMSG_DATA(header), sizeof(first));
    ssize_t size = pread(first, content, sizeof(content) - 1, 0);
    content[size < 0 ? 0 : size] = 0;
  }
  printf("%d %s\n", count, content);
  fflush(stdout);
}

static void answer(int connection, const char *path, int count) {
  char bytes[65536];
  int file = open(path, O_RDONLY);
  ssize_t size = read(file, bytes, sizeof(bytes));
  int pair[2];
  if (size < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) exit(1);
  struct iovec part = {bytes, (size_t)size};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  if (count > 0) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
    for (int index = 0; index < count; index += 1) memcpy((int *)CMSG_DATA(header) + index, &pair[0], sizeof(int));
  }
  sendmsg(connection, &message, 0);
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strncpy(address.sun_path, argv[1], sizeof(address.sun_path) - 1);
  int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  if (bind(listener, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(listener, 1) != 0) return 1;
  printf("listening\n");
  fflush(stdout);
  int connection = accept(listener, NULL, NULL);
  take(connection);
  answer(connection, argv[2], atoi(argv[3]));
  return 0;
}
