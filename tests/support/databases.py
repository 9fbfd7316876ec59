"""The databases that tests/services starts."""
from __future__ import annotations

import contextlib
import glob
import os
import pathlib
import pwd
import shutil
import signal
import subprocess

from servers import Server, start_time


class MariaDB(Server):
    name = "mariadb"
    packages = {"/usr/sbin/mariadbd": "mariadb-server", "/usr/bin/mariadb": "mariadb-client"}
    own_options: tuple[str, ...] = ()
    set_up = "CREATE DATABASE IF NOT EXISTS millrace"

    @property
    def socket(self) -> pathlib.Path:
        return self.data / "sock"

    def user(self) -> list[str]:
        return ["--user=root"] if os.geteuid() == 0 else []

    def prepare(self):
        self.check_socket(self.socket)
        tables = self.data / "data"
        if not (tables / "mysql").exists():
            shutil.rmtree(tables, ignore_errors=True)
            self.run(["mariadb-install-db", "--no-defaults", *self.user(), f"--datadir={tables}",
                      "--auth-root-authentication-method=normal", "--skip-test-db"])

    def launch(self):
        self.spawn("server", [self.program(), "--no-defaults", *self.user(), f"--datadir={self.data / 'data'}",
                              f"--socket={self.socket}", "--bind-address=127.0.0.1", f"--port={self.port}",
                              "--skip-name-resolve", "--innodb-buffer-pool-size=64M",
                              # What a reader of changes needs.
                              "--log-bin=binlog", "--server-id=1", "--binlog-format=ROW", "--binlog-row-image=FULL",
                              *self.own_options, *self.options])

    def program(self) -> str:
        return "/usr/sbin/mariadbd"

    def ready(self):
        # By the socket, which nobody else can have taken.
        done = subprocess.run(["mariadb", "--no-defaults", f"--socket={self.socket}", "--user=root", "--execute",
                               self.set_up], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        return done.returncode == 0

    def address(self):
        return f"mysql://root@127.0.0.1:{self.port}/millrace"


class MySQL(MariaDB):
    """The mysqld that a variable names; Debian has none."""
    name = "mysql"
    packages = {"/usr/bin/mariadb": "mariadb-client"}
    program_variable = "MILLRACE_MYSQLD"
    # Like MariaDB without TLS unless certificates are given; no other port, no folder of the system.
    own_options = ("--auto-generate-certs=OFF", "--mysqlx=OFF", "--secure-file-priv=NULL")
    # MariaDB makes this user itself.
    set_up = ("CREATE USER IF NOT EXISTS root@'127.0.0.1'; GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION; "
              "CREATE DATABASE IF NOT EXISTS millrace")

    def missing(self):
        reasons = super().missing()
        if not shutil.which(self.program()):
            reasons.append(f"{self.program_variable} names no mysqld")
        return reasons

    def program(self):
        return os.environ.get(self.program_variable, "")

    def prepare(self):
        self.check_socket(self.socket)
        # Left by one that was killed, whose number may still be taken: by a process that nobody has reaped, say.
        self.socket.with_suffix(".lock").unlink(missing_ok=True)
        tables = self.data / "data"
        if not (tables / "mysql.ibd").exists():
            shutil.rmtree(tables, ignore_errors=True)
            self.run([self.program(), "--no-defaults", "--initialize-insecure", *self.user(), f"--datadir={tables}",
                      *self.own_options])


class PostgreSQL(Server):
    name = "postgres"
    packages = {"/usr/lib/postgresql/*/bin/postgres": "postgresql", "/usr/lib/postgresql/*/bin/psql": "postgresql-client"}
    stop_signal = signal.SIGINT  # SIGTERM waits for the clients to go

    @property
    def tables(self) -> pathlib.Path:
        return self.data / "data"

    def program(self, name: str) -> str:
        # Debian's wrappers in /usr/bin look for clusters of the system.
        return max(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), key=lambda path: int(path.split("/")[4]))

    def user(self) -> str:
        return "postgres" if any(entry.pw_name == "postgres" for entry in pwd.getpwall()) else "nobody"

    def unprivileged(self) -> list[str]:
        """It refuses to run as root; another user cannot enter a private folder without this right."""
        if os.geteuid() != 0:
            return []
        return ["setpriv", f"--reuid={self.user()}", f"--regid={pwd.getpwnam(self.user()).pw_gid}", "--clear-groups",
                "--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"]

    def processes(self, role=None):
        """Each has a session of its own, but all of them work in the folder of the tables."""
        found = []
        for path in glob.glob("/proc/[0-9]*/cwd"):
            with contextlib.suppress(OSError):
                if os.readlink(path).removesuffix(" (deleted)") == str(self.tables):
                    found += [pid for pid in [int(path.split("/")[2])] if start_time(pid)]
        return found or super().processes(role)

    def prepare(self):
        self.check_socket(self.data / f".s.PGSQL.{self.port}")
        if not (self.tables / "PG_VERSION").exists():
            shutil.rmtree(self.tables, ignore_errors=True)
            self.tables.mkdir(mode=0o700)
            if self.unprivileged():
                for folder in (self.data, self.tables):
                    shutil.chown(folder, self.user())
            self.run([*self.unprivileged(), self.program("initdb"), f"--pgdata={self.tables}", "--username=postgres",
                      "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"], cwd=self.data)

    def launch(self):
        # Left by one that was killed, whose number may still be taken: by a process that nobody has reaped, say.
        for stale in (self.tables / "postmaster.pid", self.data / f".s.PGSQL.{self.port}.lock"):
            stale.unlink(missing_ok=True)
        self.spawn("server", [*self.unprivileged(), self.program("postgres"), "-D", str(self.tables), "-p", str(self.port),
                              "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.data}",
                              "-c", "shared_buffers=64MB", *self.options])

    def psql(self, database: str, sql: str) -> subprocess.CompletedProcess:
        # By the socket, which nobody else can have taken.
        return subprocess.run([self.program("psql"), "-X", "-q", "-h", str(self.data), "-p", str(self.port), "-U", "postgres",
                               "-d", database, "-c", sql], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False)

    def ready(self):
        return self.psql("millrace", "").returncode == 0 or self.psql("postgres", "CREATE DATABASE millrace").returncode == 0

    def address(self):
        return f"postgresql://postgres@127.0.0.1:{self.port}/millrace"
