/* The app of a self-test: says that it runs, and waits to be killed. */
#include <unistd.h>

int main(void)
{
    if (write(1, "hello\n", 6) != 6)
        return 1;
    for (;;)
        pause();
}
