# A Central in the guest, in the Perl that every Debian has: takes each report and writes down the heads of the requests.
# Usage: perl central.pl PORT FILE
use strict;
use warnings;
use IO::Socket::INET;

my ($port, $file) = @ARGV;
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 8, ReuseAddr => 1)
    or die "port $port: $@";
while (my $peer = $listener->accept) {
    my ($head, $length) = ('', 0);
    while (defined(my $line = <$peer>)) {
        $head .= $line;
        $length = $1 if $line =~ /^content-length:\s*(\d+)/i;
        last if $line =~ /^\r?\n$/;
    }
    read $peer, my ($body), $length;
    open my $log, '>>', $file or die "$file: $!";
    print $log $head;
    close $log;
    print $peer "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    close $peer;
}
