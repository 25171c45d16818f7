# Carries connections to a TCP port of the guest to the same VSOCK port of its host, in the Perl that every Debian has.
# Usage: perl forward.pl PORT
use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;
use Socket;

use constant { AF_VSOCK => 40, HOST => 2 };

my ($port) = @ARGV;
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 8, ReuseAddr => 1)
    or die "port $port: $@";
$SIG{CHLD} = 'IGNORE';
while (1) {
    my $client = $listener->accept or next;
    next if fork;
    socket(my $host, AF_VSOCK, SOCK_STREAM, 0) or die "vsock: $!";
    # struct sockaddr_vm: family, reserved, port, CID, and four bytes of zeros.
    connect($host, pack('S S L L x4', AF_VSOCK, 0, $port, HOST)) or die "host: $!";
    my %other = (fileno($client) => $host, fileno($host) => $client);
    my $both = IO::Select->new($client, $host);
    while (my @ready = $both->can_read) {
        for my $from (@ready) {
            exit unless sysread $from, my ($bytes), 65536;
            while (length $bytes) {
                my $written = syswrite($other{fileno $from}, $bytes) or exit;
                substr($bytes, 0, $written, '');
            }
        }
    }
    exit;
}
