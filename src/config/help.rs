//! The texts of `--help`, `--help_tls` and `--version`.

use crate::wire::info::{REFERENCE_VERSION, RINGMAIN_VERSION};

/// Two lines. Tools parse the first, so it is exactly what nats-server prints.
pub(super) fn version() -> String {
    format!("nats-server: v{REFERENCE_VERSION}\nringmain: v{RINGMAIN_VERSION}\n")
}

/// What `--help` prints, and a command line that cannot be read.
pub(super) const HELP: &str = "
Usage: ringmain [options]

Server:
    -a, --addr, --net <host>         Address to listen on for clients (default: 0.0.0.0)
    -p, --port <port>                Port to listen on for clients, -1 for any free one (default: 4222)
    -n, --name,
        --server_name <name>         Name of this server, without spaces (default: its id)
        --workers <number>           Worker threads, 0 for one per core (default: 0)
        --io <driver>                What drives the sockets: uring, epoll, or auto, which is uring where the system
                                     allows it, and else epoll with a warning (default: auto)
    -P, --pid <file>                 Write the process id to this file
    -m, --http_port <port>           Port of the monitoring over HTTP, -1 for any free one (default: none)
    -ms,--https_port <port>          ... over HTTPS instead, with the certificate of the server
    -c, --config <file>              Read options from this file; flags override it
    -t                               Check the file of -c, print its fingerprint, and exit
    -sl,--signal <signal>[=<pid>]    Send a signal to a running server and exit: ldm, stop, quit, term, reopen, reload;
                                     <pid> is a process id or the path of a pid file
        --client_advertise <addr>    host or host:port that clients and other servers are told
        --ports_file_dir <dir>       Write the open ports to <executable>_<pid>.ports in this directory

Logging:
    -l, --log <file>                 Log to this file instead of standard error
    -s, --syslog                     Log to the local syslog, if there is no log file
    -r, --remote_syslog <addr>       ... or to this one: udp://host:port, tcp://host:port, unix:///path
        --log_size_limit <bytes>     Put the log file aside for a new one when it is longer (default: never)
        --log_max_num <number>       Log files to keep, the one being written included (default: all)
    -T, --logtime                    Put the time on log lines (default: true)
        --logtime_utc                ... in UTC instead of local time (default: false)
    -D, --debug                      Log what helps to find faults
    -V, --trace                      Log the protocol
    -VV                              Log the protocol, that of the system account too
    -DV                              -D and -V
    -DVV                             -D and -VV
        --max_traced_msg_len <len>   Bytes of a message that the protocol log shows (default: all)

Authorization:
        --user <user>                User that clients must give
        --pass <password>            Password that clients must give
        --auth <token>               Token that clients must give

TLS:
        --tls                        Encrypt connections
        --tlsverify                  Encrypt connections, and have clients show a certificate
        --tlscert <file>             Certificate of the server
        --tlskey <file>              Its key
        --tlscacert <file>           Who may have signed the certificates of clients

JetStream:
    -js, --jetstream                 Keep streams
    -sd, --store_dir <dir>           ... in this directory

Cluster:
        --cluster, --cluster_listen <url>
                                     Address for routes of other servers, with what they have to show:
                                     nats://user:pass@host:port
        --cluster_name <name>        Name of the cluster; one is made up if there is none
        --routes <url,...>           Servers to connect to
        --cluster_advertise <host:port>
                                     Where other servers are told to find this one
        --no_advertise               Do not tell clients of the other servers
        --connect_retries <n>        How often a server is tried again that others have told of

Common:
    -h, --help                       Show this text
    -v, --version                    Show the versions
        --help_tls                   Show help on TLS

Known and not supported yet (accepted, with a warning at start):
    --profile

";

/// What `--help_tls` prints.
pub(super) const HELP_TLS: &str = "
Clients are encrypted with --tls, --tlscert FILE and --tlskey FILE, or with a \"tls\" map in the configuration. A
certificate for trying it out, and for nothing else:

    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost \\
        -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout key.pem -out cert.pem
    ringmain --tls --tlscert cert.pem --tlskey key.pem
    nats --tlsca cert.pem -s tls://localhost pub greet.joe hello

With --tlsverify and --tlscacert FILE clients have to show a certificate that one of the authorities in FILE has signed.

";
