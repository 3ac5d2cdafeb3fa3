// Two square rooms, 2.4 wide, joined by a corridor of length 1.2 and width 0.5, which is meshed more finely.
Mesh.MshFileVersion = 4.1;
a = 0.6;   // half the length of the corridor
b = 3.0;   // half the whole length
c = 1.2;   // half the height of a room
w = 0.25;  // half the width of the corridor
h = 0.11;  // cell size in the rooms
k = 0.07;  // cell size in the corridor

Point(1) = {-b, -c, 0, h};
Point(2) = {-a, -c, 0, h};
Point(3) = {-a, -w, 0, k};
Point(4) = {-a, w, 0, k};
Point(5) = {-a, c, 0, h};
Point(6) = {-b, c, 0, h};
Point(7) = {b, -c, 0, h};
Point(8) = {a, -c, 0, h};
Point(9) = {a, -w, 0, k};
Point(10) = {a, w, 0, k};
Point(11) = {a, c, 0, h};
Point(12) = {b, c, 0, h};

Line(1) = {1, 2};
Line(2) = {2, 3};
Line(3) = {3, 4};
Line(4) = {4, 5};
Line(5) = {5, 6};
Line(6) = {6, 1};
Line(7) = {8, 7};
Line(8) = {7, 12};
Line(9) = {12, 11};
Line(10) = {11, 10};
Line(11) = {10, 9};
Line(12) = {9, 8};
Line(13) = {3, 9};
Line(14) = {4, 10};
Curve Loop(1) = {1, 2, 3, 4, 5, 6};
Curve Loop(2) = {13, -11, -14, -3};
Curve Loop(3) = {7, 8, 9, 10, 11, 12};
Plane Surface(1) = {1};
Plane Surface(2) = {2};
Plane Surface(3) = {3};

Physical Surface("left room", 1) = {1};
Physical Surface("corridor", 2) = {2};
Physical Surface("right room", 3) = {3};
Physical Curve("walls", 4) = {1, 2, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14};
