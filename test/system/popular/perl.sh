#!/usr/bin/perl
# Modules, regular expressions, big numbers, sorting, files, and a child process.
use strict;
use warnings;
use List::Util qw(sum reduce);
use Math::BigInt;
use File::Temp qw(tempfile);

sub check { my ($is, $wanted, $what) = @_; $is eq $wanted or die "$what: $is instead of $wanted\n" }

check(sum(1 .. 1000), 500500, 'sum');
check(Math::BigInt->new(2)->bpow(200), '1606938044258990275541962092341162602522202993782792835301376', 'power');
my %count;
$count{$_}++ for 'the quick brown fox jumps over the lazy dog the end' =~ /(\w+)/g;
check($count{the}, 3, 'words');
check(join(',', (sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count)[0, 1]), 'the,brown', 'order');
(my $text = 'a1b22c333') =~ s/(\d+)/'<' . length($1) . '>'/ge;
check($text, 'a<1>b<2>c<3>', 'substitution');
my ($file, $name) = tempfile();
print $file "line $_\n" for 1 .. 100;
close $file;
open my $again, '<', $name or die;
my @lines = <$again>;
check(scalar(@lines), 100, 'lines');
defined(my $child = fork) or die 'fork';
exit 7 if $child == 0;
waitpid $child, 0;
check($? >> 8, 7, 'child');
check(scalar `echo from a shell`, "from a shell\n", 'shell');
print "ok\n";
