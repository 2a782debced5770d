"""Runs a command under a real terminal of 33 lines and 77 columns, by what it says.

argv: a JSON list of steps, then the command. A step is {"until": text} or {"type": text} or {"size": [lines, columns]}.
Prints what the terminal showed and, on the last line, the exit code.
"""
import fcntl, json, os, pty, signal, struct, sys, termios

steps, command = json.loads(sys.argv[1]), sys.argv[2:]
child, terminal = pty.fork()
if child == 0:
    # Only now: what was there before the size was set would be told of it by a signal.
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    os.execvp(command[0], command)

shown, looked = b"", 0
for step in steps:
    if "type" in step:
        os.write(terminal, step["type"].encode())
    elif "size" in step:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *step["size"], 0, 0))
    else:
        while step["until"].encode() not in shown[looked:]:
            try:
                shown += os.read(terminal, 4096)
            except OSError:
                sys.exit("the command ended and showed " + repr(shown))
        looked = shown.index(step["until"].encode(), looked) + len(step["until"])
while True:
    try:
        more = os.read(terminal, 4096)
    except OSError:
        break
    if not more:
        break
    shown += more
raw = termios.tcgetattr(terminal)[3] & termios.ICANON == 0
_, status = os.waitpid(child, 0)
sys.stdout.write(shown.decode(errors="replace"))
print("\n%s %d" % ("raw" if raw else "cooked", os.waitstatus_to_exitcode(status)))
