// The square [-2, 2]² without the disk of radius 0.6 about the origin.
Mesh.MshFileVersion = 2.2;
a = 2;
r = 0.6;
h = 0.2;   // cell size at the square
k = 0.1;   // cell size at the hole

Point(1) = {-a, -a, 0, h};
Point(2) = {a, -a, 0, h};
Point(3) = {a, a, 0, h};
Point(4) = {-a, a, 0, h};
Point(5) = {0, 0, 0, k};
Point(6) = {r, 0, 0, k};
Point(7) = {0, r, 0, k};
Point(8) = {-r, 0, 0, k};
Point(9) = {0, -r, 0, k};
Line(1) = {1, 2};
Line(2) = {2, 3};
Line(3) = {3, 4};
Line(4) = {4, 1};
Circle(5) = {6, 5, 7};
Circle(6) = {7, 5, 8};
Circle(7) = {8, 5, 9};
Circle(8) = {9, 5, 6};
Curve Loop(1) = {1, 2, 3, 4};
Curve Loop(2) = {5, 6, 7, 8};
Plane Surface(1) = {1, 2};

Physical Surface("domain", 1) = {1};
Physical Curve("square", 2) = {1, 2, 3, 4};
Physical Curve("hole", 3) = {5, 6, 7, 8};
