mod cluster;
mod words;

use cluster::check;

#[test]
fn a_user_with_two_connections_comes_once_and_goes_with_the_last() {
    check(
        "
        0     start 1 alone    =>
        0     join 1 room a ana => 1+ana@room !came:ana@room
        10    join 1 room b ana =>
        20    leave 1 room a    =>
        30    leave 1 room b    => 1-ana@room 3030:!went:ana@room
        ",
    );
}

#[test]
fn the_roster_shows_what_came_first_and_once_that_is_gone_the_next() {
    check(
        "
        0     start 1 alone            =>
        0     join 1 room a ana info=1 => 1+ana:1@room !came:ana@room
        10    join 1 room b ana info=2 =>
        20    roster 1 room            => ana:1
        30    leave 1 room a           =>
        40    roster 1 room            => ana:2
        50    leave 1 room b           => 1-ana:2@room 3050:!went:ana@room
        ",
    );
}

#[test]
fn a_roster_is_sorted_by_the_ids_text() {
    check(
        "
        0     start 1 alone     =>
        0     join 1 room a 10  => 1+10@room !came:10@room
        0     join 1 room b 9   => 1+9@room !came:9@room
        0     join 1 room c ana => 1+ana@room !came:ana@room
        10    roster 1 room     => 10,9,ana
        10    roster 1 hall     =>
        ",
    );
}

#[test]
fn a_full_roster_takes_nobody_but_who_is_on_it() {
    check(
        "
        0     start 1 alone           =>
        0     join 1 room a ana max=2 => 1+ana@room !came:ana@room
        0     join 1 room b ben max=2 => 1+ben@room !came:ben@room
        0     join 1 room c cem max=2 => full
        0     join 1 room d ben max=2 =>
        10    leave 1 room a          => 1-ana@room
        10    join 1 room c cem max=2 => 1+cem@room !came:cem@room 3010:!went:ana@room
        ",
    );
}

#[test]
fn whoever_is_elsewhere_counts_for_a_full_roster_and_is_known_without_a_question() {
    check(
        "
        0     start 1                 =>
        0     start 2                 =>
        300   join 1 room a ana max=1 => 1+ana@room 2+ana@room
        400   join 2 room b ben max=1 => full
        410   join 2 room c ana max=1 => 2500:!came:ana@room
        3000  asks                    => 0
        ",
    );
}

#[test]
fn a_user_on_two_nodes_goes_with_the_last_connection_of_either() {
    check(
        "
        0     start 1           =>
        0     start 2           =>
        3000  join 1 room a ana => 1+ana@room 2+ana@room !came:ana@room
        3100  join 2 room b ana =>
        3200  leave 1 room a    =>
        3300  leave 2 room b    => 2-ana@room 1-ana@room 6300:!went:ana@room
        ",
    );
}

#[test]
fn what_was_lost_is_found_by_the_next_heartbeat() {
    check(
        "
        0     start 1           =>
        0     start 2           =>
        2900  lose 1>2          =>
        2950  join 1 room a ana => 1+ana@room !came:ana@room
        2950  count 1 room 2    => 1#2@room !occupied@room
        3000  heal              => 4500:2+ana@room 4500:2#2@room
        4700  lose 1>2          =>
        4800  leave 1 room a    => 1-ana@room
        4900  heal              => 6500:2-ana@room 7800:!went:ana@room
        9600  asks              => 2
        ",
    );
}

#[test]
fn who_changed_the_connection_unheard_was_never_away() {
    check(
        "
        0     start 1           =>
        0     start 2           =>
        2900  join 1 room a ana => 1+ana@room 2+ana@room !came:ana@room
        3000  lose 1>2          =>
        3100  join 1 room b ana =>
        3200  leave 1 room a    =>
        3300  join 1 room c ben => 1+ben@room !came:ben@room
        3400  heal              => 4500:2+ben@room
        4600  roster 2 room     => ana,ben
        4700  leave 1 room b    => 1-ana@room 2-ana@room 7700:!went:ana@room
        ",
    );
}

#[test]
fn a_node_that_is_silent_for_8_s_is_dead_and_its_users_go_once() {
    check(
        "
        0     start 1           =>
        0     start 2           =>
        3000  join 1 room a ana => 1+ana@room 2+ana@room !came:ana@room
        3000  join 1 room b ben => 1+ben@room 2+ben@room !came:ben@room
        3000  join 2 room c ben =>
        3000  count 1 room 2    => 1#2@room 2#2@room !occupied@room
        5000  kill 1            => 12500:2-ana@room 12500:2#0@room 15500:!vacated@room 15500:!went:ana@room
        16000 roster 2 room     => ben
        16000 nodes 2           => [2]
        ",
    );
}

#[test]
fn what_happens_while_the_only_teller_is_dead_and_nobody_knows_is_told_by_the_next() {
    check(
        "
        0     start 1           =>
        100   start 2           =>
        100   start 3           =>
        4000  join 1 room a ana => 1+ana@room 2+ana@room 3+ana@room !came:ana@room
        4900  kill 1            =>
        5000  join 2 room b ben => 2+ben@room 3+ben@room
        6000  join 3 hall c cem => 2+cem@hall 3+cem@hall 12500:2-ana@room 12500:!came:ben@room 12500:!came:cem@hall 12500:3-ana@room 15500:!went:ana@room
        16000 nodes 2           => [2,3]
        ",
    );
}

#[test]
fn while_the_own_link_is_down_nobody_dies_and_afterwards_all_have_the_full_time() {
    check(
        "
        0     start 1           =>
        0     start 2           =>
        3000  join 1 room a ana => 1+ana@room 2+ana@room !came:ana@room
        3500  cut 1             =>
        3500  cut 2             =>
        30000 mend 2            =>
        37000 nodes 2           => [1,2]
        37900 roster 2 room     => ana
        37950 look              => 38000:2-ana@room 41000:!went:ana@room
        42000 mend 1            => 2+ana@room !came:ana@room
        ",
    );
}

#[test]
fn who_says_goodbye_is_gone_at_once_and_not_heard_again() {
    check(
        "
        0     start 1           =>
        0     start 2           =>
        3000  join 1 room a ana => 1+ana@room 2+ana@room !came:ana@room
        3500  stop 1            => 2-ana@room 6500:!went:ana@room
        7000  join 1 room b ben => 1+ben@room
        9000  nodes 2           => [2]
        ",
    );
}

#[test]
fn a_node_that_comes_knows_all_at_once_and_tells_nothing_again() {
    check(
        "
        0     start 1           =>
        3000  join 1 room a ana => 1+ana@room !came:ana@room
        3000  count 1 room 7    => 1#7@room !occupied@room
        3100  start 2           => 2+ana@room 2#7@room
        3200  roster 2 room     => ana
        3300  nodes 2           => [1,2]
        40000 leave 1 room a    => 1-ana@room 2-ana@room 43000:!went:ana@room
        ",
    );
}

#[test]
fn who_comes_back_within_3_s_was_never_away_for_the_application() {
    check(
        "
        0     start 1           =>
        0     start 2           =>
        3000  join 1 room a ana => 1+ana@room 2+ana@room !came:ana@room
        3000  count 1 room 1    => 1#1@room 2#1@room !occupied@room
        4000  leave 1 room a    => 1-ana@room 2-ana@room
        4000  count 1 room 0    => 1#0@room 2#0@room
        6900  join 2 room b ana => 2+ana@room 1+ana@room
        6900  count 2 room 1    => 2#1@room 1#1@room
        20000 leave 2 room b    => 2-ana@room 1-ana@room 23000:!went:ana@room
        24000 count 2 room 0    => 2#0@room 1#0@room 27000:!vacated@room
        27500 count 2 room 1    => 2#1@room 1#1@room !occupied@room
        ",
    );
}

#[test]
fn what_a_teller_that_dies_may_not_have_told_is_told_by_the_next() {
    // The facts of `room` are told by 1: what happens once it is dead is told when it is found dead; what happens later, at
    // once.
    check(
        "
        0     start 1           =>
        0     start 2           =>
        20000 kill 1            =>
        21000 join 2 room a ana => 2+ana@room 26500:!came:ana@room
        30000 leave 2 room a    => 2-ana@room 33000:!went:ana@room
        ",
    );
}

#[test]
fn nodes_that_lost_their_broker_tell_what_happened_meanwhile() {
    check(
        "
        0     start 1           =>
        0     start 2           =>
        3000  join 1 room a ana => 1+ana@room 2+ana@room !came:ana@room
        3000  join 1 room b ben => 1+ben@room 2+ben@room !came:ben@room
        20000 cut 1             =>
        20000 cut 2             =>
        21000 leave 1 room a    => 1-ana@room
        22000 join 2 room c cem => 2+cem@room
        30000 mend 1            =>
        30000 mend 2            => 1+cem@room 32000:2-ana@room 32500:!went:ana@room 32500:!came:cem@room
        ",
    );
}

#[test]
fn a_node_that_others_thought_dead_is_told_so_and_its_users_come_anew() {
    check(
        "
        0     start 1           =>
        0     start 2           =>
        20000 join 1 room a ana => 1+ana@room 2+ana@room !came:ana@room
        21000 lose 1>2          => 28500:2-ana@room 31500:!went:ana@room
        36000 heal              => 36500:2+ana@room 36500:!came:ana@room
        37000 roster 2 room     => ana
        80000 leave 1 room a    => 1-ana@room 2-ana@room 83000:!went:ana@room
        ",
    );
}

#[test]
fn a_user_who_reloads_the_page_stays_online() {
    check(
        "
        0     start 1               =>
        0     start 2               =>
        3000  join 1 $online:7 a 7  => 1+7@$online:7 2+7@$online:7
        4000  leave 1 $online:7 a   =>
        4100  roster 2 $online:7    => 7
        6900  join 2 $online:7 b 7  =>
        9000  leave 2 $online:7 b   => 12000:1-7@$online:7 12000:2-7@$online:7
        ",
    );
}

#[test]
fn numbers_up_to_100_are_said_each_and_larger_ones_every_5_s() {
    check(
        "
        0     start 1 alone     =>
        0     count 1 room 99   => 1#99@room !occupied@room !count:99@room
        100   count 1 room 100  => 1#100@room !count:100@room
        200   count 1 room 101  =>
        300   count 1 room 103  =>
        400   look              => 5100:1#103@room 5100:!count:103@room
        20000 count 1 room 150  => 1#150@room !count:150@room
        20001 count 1 room 151  =>
        20002 count 1 room 100  => 1#100@room !count:100@room
        ",
    );
}

#[test]
fn carillons_own_channels_are_not_told_of() {
    check(
        "
        0     start 1 alone      =>
        0     count 1 $user:7 1  => 1#1@$user:7
        0     join 1 $user:7 a 7 => 1+7@$user:7
        0     leave 1 $user:7 a  => 1-7@$user:7
        0     count 1 $user:7 0  => 1#0@$user:7
        9000  entries 1          => 0
        ",
    );
}
